"""A process of its own: the memory that two compilers plan for the flow of a size of `benchmarks/memory.py`, in bytes.

Its argument is the name of the size. Prints a line of JSON: what `wgf.memory_estimate` foresees on this machine's CPU,
and what the compiler for the H100 plans.
"""

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "benchmarks")]

import compile_for  # noqa: E402 (before JAX)
import memory  # noqa: E402

import wgf  # noqa: E402


def planned(name: str) -> dict[str, int]:
    """The peaks: arguments, solution and scratch memory."""
    (objective, model, taus), options = memory.problem(memory.SIZES[name])
    here = wgf.memory_estimate(objective, model, taus, **options)

    def flow(objective, model):
        return wgf.flow(objective, model, taus, throw=False, **options)

    there = compile_for.lower("h100", flow, objective, model).compile().memory_analysis()
    sizes = there.argument_size_in_bytes, there.output_size_in_bytes - there.alias_size_in_bytes
    return {"cpu": here.peak, "h100": sum(sizes) + there.temp_size_in_bytes}


if __name__ == "__main__":
    print(json.dumps(planned(sys.argv[1])))
