"""A process of its own, where each core has a device: it times one velocity whose prompts are spread over them.

    _spread.py '{"size": [8, 64, 64, 5, 9, 2], "dtype": "float32", "result": "velocity.npz"}'

It writes the velocity's arrays to the file `result`, prints `true`, and then answers each line of its input with the
seconds of a call. It prints `false` and ends if there is one core, or if the cores do not divide the prompts.
"""

import json
import os
import sys
import time

# JAX reads it when it starts. The processor's own width; XLA's default is 256, on processors that do 512 as fast.
os.environ["XLA_FLAGS"] = (
    f"--xla_cpu_prefer_vector_width=512 --xla_force_host_platform_device_count={os.cpu_count()} "
    + os.environ.get("XLA_FLAGS", "")
)

import jax
import numpy as np
from rhs import problem

import wgf

# Where each core has a device of its own, XLA need not cut loops for several.
WHOLE_LOOPS = {"xla_disable_hlo_passes": "cpu-parallel-task-assigner"}


def main(size: list[int], dtype: str, result: str) -> None:
    """Compile, write the velocity, and time calls as they are asked for."""
    with jax.enable_x64(dtype == "float64"):
        objective, model = problem(tuple(size))
        cores = jax.device_count()
        if cores == 1 or objective.prompts.batch % cores:
            print("false", flush=True)
            return
        mesh = wgf.sharding.mesh(prompts=cores)
        objective, model = wgf.sharding.shard((objective, model), mesh)
        with jax.set_mesh(mesh):
            compiled = jax.jit(wgf.velocity).lower(objective, model).compile(compiler_options=WHOLE_LOOPS)
        np.savez(result, *jax.tree.leaves(compiled(objective, model)))
        print("true", flush=True)
        for _ in sys.stdin:
            jax.block_until_ready(compiled(objective, model))
            start = time.perf_counter()
            jax.block_until_ready(compiled(objective, model))
            print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
