"""Chips that are not here, and programs for them: XLA's compilers for NVIDIA GPUs and TPUs run on any machine.

An NVIDIA GPU takes the wheels `jax-cuda13-pjrt` and `jax-cuda13-plugin`, a TPU the wheel `libtpu`; no driver, no CUDA.
Import this module before JAX, in a process of its own. In a program for another chip nothing can call back to this
machine, so that checks of values by Equinox and Diffrax are left out (EQX_ON_ERROR=nan).
"""

import importlib.metadata
import os
from collections.abc import Callable, Sequence

os.environ |= {"JAX_PLATFORMS": "cpu", "EQX_ON_ERROR": "nan", "TPU_SKIP_MDS_QUERY": "1", "TPU_LOG_DIR": "disabled"}
# Several processes may compile for a TPU side by side: there is no chip that one of them could take.
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
if importlib.metadata.version("jax").startswith("0.10."):
    # This release wants to try tiles of products out on the chip.
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_enable_triton_gemm=false"

import jax
from jax.experimental import topologies

# What XLA asks of a chip, from the data sheet of the H100.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84942979072 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 patch: 0 } device_description_str: "NVIDIA H100 80GB HBM3"
"""


def chips(kind: str, shape: str = "") -> Sequence[jax.Device]:
    """Chips that can be compiled for: `h100`, shape hosts x chips per host (1x1), or `v5e`, a rectangle (2x2)."""
    if kind == "h100":
        hosts, each = (shape or "1x1").split("x")
        topology = f"{hosts}x1x{each}"
        return topologies.get_topology_desc("h100", platform="cuda", target_config=H100, topology=topology).devices
    return topologies.get_topology_desc(f"{kind}:{shape or '2x2'}", platform="tpu").devices


def lower(function: Callable, *trees) -> jax.stages.Lowered:
    """The program of `function(*trees)` for the chips where the shapes in the trees say that their arrays lie.

    Shapes and arrays in the trees are its arguments, all else is constant.
    """
    leaves, structure = jax.tree.flatten(trees)
    places = [place for place, leaf in enumerate(leaves) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")]

    def of_arrays(*arrays):
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        found = function(*jax.tree.unflatten(structure, filled))
        return [leaf for leaf in jax.tree.leaves(found) if hasattr(leaf, "dtype")]

    return jax.jit(of_arrays).lower(*(leaves[place] for place in places))
