"""A process of its own: compile one velocity for chips that are not here, and account for it.

    _forecast_program.py '{"chip": "h100", "shape": "1x1", "mesh": [1, 1], "size": [2, 8, 8, 5, 9, 2]}'

Prints one line of JSON: the processor's seconds that the compiler took, bytes of memory, kernels and messages.
"""

import json
import sys
import time
from contextlib import nullcontext

from _chips import chips, lower  # isort: skip (before JAX)

import dataclasses

import equinox as eqx
import jax
from _account import account
from rhs import problem

import wgf


def program(chip: str, shape: str, mesh: list[int], size: list[int]) -> dict:
    """The account of one velocity of attention and perceptron, `size` = (L, M, B, D, N+1, k), on a mesh of chips."""
    prompts, particles = mesh
    devices = wgf.sharding.mesh(
        prompts=prompts, particles=particles, devices=list(chips(chip, shape))[: prompts * particles]
    )
    trees = wgf.sharding.shard(eqx.filter_eval_shape(problem, tuple(size)), devices)
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trees[1].measure.particles))
    start = time.process_time()
    with jax.set_mesh(devices) if devices.size > 1 else nullcontext():
        compiled = lower(wgf.velocity, *trees).compile()
    seconds, memory = time.process_time() - start, compiled.memory_analysis()
    kernels, messages = account(compiled.as_text())
    return {
        "seconds": seconds,
        "scratch": memory.temp_size_in_bytes,
        "arguments": memory.argument_size_in_bytes,
        "particles": held,
        "kernels": [dataclasses.astuple(kernel) for kernel in kernels],
        "messages": [dataclasses.astuple(message) for message in messages],
    }


if __name__ == "__main__":
    print(json.dumps(program(**json.loads(sys.argv[1]))))
