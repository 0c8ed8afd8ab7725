"""Solve flows of ever new sizes in one process, and watch its memory.

    python benchmarks/soak.py [--minutes 30] [--quick] [--output benchmarks/results]

A long session in a notebook: each solve has a size that the process has not seen, so each compiles programs of its own.
Linux limits the memory maps of a process, and each program takes dozens; `wgf` drops the programs before the limit is
reached. Every twentieth solve is a row of the table: solves so far, minutes, memory maps, resident memory.

The claims: the process survives more solves than the limit of maps alone would allow, and from the first drop of
programs to the last the memory is flat. All goes to `soak.json` and `soak.md`. Linux only.
"""

import argparse
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
from _options import output_folder
from _report import RESULTS, Check, Table, write

import wgf

MAPS, MOST_MAPS, STATUS = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count"), Path("/proc/self/statm")
EVERY = 20
PAGE = 4096


def main() -> None:
    """Solve until the time is over, print the rows as they are known, and write the files."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long to go on")
    parser.add_argument("--quick", action="store_true", help="five solves, to see that all runs")
    parser.add_argument("--output", type=output_folder, default=RESULTS, help="the folder of the results")
    options = parser.parse_args()
    rows, drops = soak(options.minutes, most=5 if options.quick else None, every=1 if options.quick else EVERY)
    table = report(rows, drops, int(MOST_MAPS.read_text(encoding="utf-8")), options.quick)
    print(table.note, flush=True)
    write("soak", "A long session", [table], options.output)
    if not all(check.holds for check in table.checks):
        raise SystemExit("benchmarks/soak.py: a claim does not hold, see the table.")


def soak(minutes: float, most: int | None, every: int) -> tuple[list[tuple[int, float, int, float]], list[int]]:
    """The rows, and the numbers of the solves at which programs were dropped."""
    key = jax.random.key(0)
    prompts = wgf.prompts.linear_regression(key, batch=4, examples=3, dim=2)
    encoder = wgf.encoders.Perceptron(prompts.token_dim, jnp.tanh)
    objective, law = wgf.Objective(prompts, 1e-2), wgf.measures.Gaussian(encoder, 0.7)
    rows, drops, began, number = [], [], time.monotonic(), 0
    while time.monotonic() < began + 60 * minutes and number != most:
        number += 1
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            solution = wgf.flow(objective, model(law, number), [0.0, 0.3, 1.0])
        if not bool(jnp.isfinite(solution.objective).all()):
            raise RuntimeError(f"solve {number} must end with finite numbers; got {solution.objective}.")
        if any("has dropped the programs" in str(warning.message) for warning in caught):
            drops.append(number)
        if number % every == 0:
            rows.append((number, round((time.monotonic() - began) / 60, 2), *held()))
            print("{:5} solves  {:6.2f} min  {:6} maps  {:8.1f} MiB".format(*rows[-1]), flush=True)
    return rows, drops


def model(law: wgf.measures.Gaussian, number: int) -> wgf.models.AbstractModel:
    """A finite model or, at every fourth solve, one of the limit, of a width that no other has."""
    if number % 4 == 0:
        return wgf.AveragedODE(law.encoder, law.spectral(2, 3 + number, jax.random.key(number)))
    return wgf.Transformer(law.encoder, law.layered(2, 3 + number, jax.random.key(number)))


def held() -> tuple[int, float]:
    """The memory maps of this process, and its resident memory in MiB."""
    pages = int(STATUS.read_text(encoding="utf-8").split()[1])
    return MAPS.read_bytes().count(b"\n"), round(pages * PAGE / 2**20, 1)


def report(rows: list[tuple], drops: list[int], most_maps: int, quick: bool) -> Table:
    """The table with its claims. A quick run drops no programs, and claims nothing about memory."""
    # Programs that were dropped leave their memory to those that follow.
    settled = [memory for number, _, _, memory in rows if drops and number >= drops[0]]
    growth = settled[-1] / settled[0] if settled else float("inf")
    checks = [Check("memory maps held, as a share of the limit", max(row[2] for row in rows) / most_maps, 0, 0.8)]
    if not quick:
        checks.append(Check("memory at the end over memory at the first drop of programs", growth, 0, 1.1))
    note = f"Programs were dropped at the solves {drops}. The system allows a process {most_maps:,} memory maps."
    return Table("Solves of ever new sizes", ("solves", "minutes", "memory maps", "MiB"), rows, note, checks)


if __name__ == "__main__":
    main()
