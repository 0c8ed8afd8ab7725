"""Compile JAX functions for accelerators on a machine that has none, and read the products in the compiled programs.

XLA's whole compiler for the chip runs: what it refuses there it refuses here. An NVIDIA GPU takes the wheels
`jax-cuda13-pjrt` and `jax-cuda13-plugin`, a TPU the wheel `libtpu`; no driver, no CUDA. Import this module before JAX,
in a process of its own. In a program for another chip nothing can call back to this machine, so that checks of values
by Equinox and Diffrax are left out (EQX_ON_ERROR=nan).
"""

import collections
import importlib.metadata
import importlib.util
import os
import re

os.environ |= {"JAX_PLATFORMS": "cpu", "EQX_ON_ERROR": "nan", "TPU_SKIP_MDS_QUERY": "1", "TPU_LOG_DIR": "disabled"}
# Several processes may compile for a TPU side by side: there is no chip that one of them could take.
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
if importlib.metadata.version("jax").startswith("0.10."):
    # This release wants to try tiles of products out on the chip.
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_enable_triton_gemm=false"

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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


def device(chip: str):
    """A chip that can be compiled for alone: `h100` or `v5e`."""
    if chip == "h100":
        topology = topologies.get_topology_desc("h100", platform="cuda", target_config=H100, topology="1x1x1")
    else:
        topology = topologies.get_topology_desc(f"{chip}:2x2", platform="tpu")
    return topology.devices[0]


def lower(chip: str, function, *trees) -> jax.stages.Lowered:
    """The program of `function(*trees)` for a chip. Arrays in the trees are its arguments, all else is constant."""
    here = NamedSharding(Mesh(np.array([device(chip)]), ("chip",)), PartitionSpec())
    leaves, structure = jax.tree.flatten(trees)
    places = [place for place, leaf in enumerate(leaves) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")]
    shapes = [jax.ShapeDtypeStruct(leaves[place].shape, leaves[place].dtype, sharding=here) for place in places]

    def of_arrays(*arrays):
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        found = function(*jax.tree.unflatten(structure, filled))
        return [leaf for leaf in jax.tree.leaves(found) if hasattr(leaf, "dtype")]

    return jax.jit(of_arrays).lower(*shapes)


# Instructions that multiply matrices: XLA's own, and calls to NVIDIA's libraries.
_PRODUCT = re.compile(r"^\s*(?:ROOT )?%?[\w.\-]+ = (\(?\w+)\[.* (dot|convolution|custom-call)\((.*)$")
_LIBRARY = re.compile(r'custom_call_target="(__cublas\$(?!triangular)[^"]*|__cudnn[^"]*)"')
_ATTRIBUTE = re.compile(r"operand_precision=\{(\w+),(\w+)\}")
_CONFIG = re.compile(r'"operand_precision":\["(\w+)","(\w+)"\]')
_ALGORITHM = re.compile(r'algorithm=(dot_\w+)|"algorithm":"(ALG_DOT_\w+)"')


def products(text: str) -> collections.Counter:
    """How often each precision occurs among the products of float32 in an optimised program.

    A product without a precision has the chip's default: TF32 on a GPU, bfloat16 on a TPU.
    """
    found = collections.Counter()
    for line in text.splitlines():
        if not (product := _PRODUCT.match(line)) or product.group(1).lstrip("(") != "f32":
            continue
        if product.group(2) == "custom-call" and not _LIBRARY.search(line):
            continue
        if algorithm := _ALGORITHM.search(line):
            found[next(filter(None, algorithm.groups())).lower()] += 1
        else:
            asked = _ATTRIBUTE.search(line) or _CONFIG.search(line)
            found["/".join(sorted({each.lower() for each in asked.groups()})) if asked else "default"] += 1
    return found
