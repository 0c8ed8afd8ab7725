"""The memory that `wgf.memory_estimate` foresees, and the memory that the flow then takes.

    python benchmarks/memory.py [--quick]

Each size runs in a process of its own: estimate (which compiles), set the peak of the process back, flow, read the
peak, and once more. Linux alone tells it (`/proc/self/clear_refs`). Measured is the growth of the process during the
flow, and with it the arguments, which lie there before. In the first flow the process also takes what it keeps: the
code of the program, its threads. The claim is about the second.

Prints a table and writes it to `benchmarks/results/memory.json` and `.md`. Exits with 1 if a claim fails. About four
minutes on two cores.
"""

import argparse
import ctypes
import dataclasses
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from _options import output_folder
from _problems import Regression
from _report import RESULTS, Check, Table, summary, write

import wgf

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Size:
    """A flow: the model's L and M, the prompts' B and N + 1, the number of saved τ, the solver and the model."""

    depth: int
    width: int
    batch: int
    length: int
    saves: int
    solver: str = "Tsit5"
    model: str = "Transformer"

    @property
    def text(self) -> str:
        """L, M, B, N + 1 and the saves."""
        return f"({self.depth}, {self.width}, {self.batch}, {self.length}, {self.saves})"


SIZES = {
    "many particles": Size(2, 2**16, 4, 5, 3),
    "many saved τ": Size(2, 2**13, 4, 5, 60),
    "many prompts": Size(16, 2, 2**14, 9, 3),
    "long prompts": Size(2, 8, 16, 385, 3),
    "RKC": Size(2, 2**16, 4, 5, 3, solver="RKC"),
    "the limit": Size(3, 2**15, 4, 5, 8, model="AveragedODE"),
}
QUICK = {"many particles": Size(2, 2**15, 2, 3, 4)}


def main() -> int:
    """Run the sizes, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small size, to see that all runs")
    parser.add_argument("--output", type=output_folder, default=RESULTS, help="the folder to write to")
    parser.add_argument("--size", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.size:
        print(json.dumps(measure(Size(**json.loads(options.size)))))
        return 0
    table = compare(QUICK if options.quick else SIZES, options.quick)
    claims = summary([table])
    write("memory", "Memory", [claims, table], options.output, quick=options.quick)
    print(table.text(), claims.text(), sep="\n\n")
    return int(not options.quick and not all(check.holds for check in table.checks))


def compare(sizes: dict[str, Size], quick: bool) -> Table:
    """Foreseen and measured memory of each size."""
    rows, checks = [], []
    for name, size in sizes.items():
        found = apart(size)
        foreseen = (found["arguments"] + found["solution"] + found["scratch"]) / MIB
        first, measured = ((found["arguments"] + growth) / MIB for growth in found["growth"])
        parts = [found[part] / MIB for part in ("arguments", "solution", "scratch")]
        rows.append((name, size.text, *parts, foreseen, first, measured, foreseen / measured))
        if not quick:
            checks.append(Check(f"foreseen over measured, {name}", foreseen / measured, 1 / 1.5, 1.5))
    columns = (
        "",
        "(L, M, B, N+1, saves)",
        "arguments",
        "solution",
        "scratch",
        "foreseen",
        "first flow",
        "second flow",
        "ratio",
    )
    note = "MiB. Foreseen: wgf.memory_estimate. Ratio: to the second flow. The first one loads code that stays."
    return Table("Memory of a flow", columns, rows, note, checks)


def apart(size: Size) -> dict[str, Any]:
    """The bytes of one size, from a process of its own."""
    command = [sys.executable, __file__, "--size", json.dumps(dataclasses.asdict(size))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(size: Size) -> dict[str, Any]:
    """The parts of the estimate, and the growth of this process while the flow runs, once and again, in bytes."""
    arguments, options = problem(size)
    found = wgf.memory_estimate(*arguments, **options)
    growth = [growth_of(lambda: wgf.flow(*arguments, **options)) for _ in range(2)]
    return {"arguments": found.arguments, "solution": found.solution, "scratch": found.scratch, "growth": growth}


def problem(size: Size) -> tuple[tuple, dict[str, Any]]:
    """The arguments of the flow, and its options."""
    made = Regression(batch=size.batch, examples=size.length - 1, width=size.width)
    model = made.finite(size.depth) if size.model == "Transformer" else made.limit(size.depth)
    solver = wgf.flows.RKC() if size.solver == "RKC" else diffrax.Tsit5()
    taus = jnp.linspace(0, 5e-3, size.saves)
    return (made.objective, model, taus), {"solver": solver, "dt0": 5e-3, "max_steps": 64}


def growth_of(flow: Callable[[], wgf.flows.FlowSolution]) -> int:
    """By how much this process grows at most during a flow, in bytes."""
    gc.collect()
    # Memory that was given back to the C library alone would hide what the flow takes.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _status("VmRSS")
    solution = jax.block_until_ready(flow())
    growth = _status("VmHWM") - before
    assert jnp.isfinite(solution.objective).all()
    return growth


def _status(name: str) -> int:
    """A number of bytes that Linux keeps of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


if __name__ == "__main__":
    sys.exit(main())
