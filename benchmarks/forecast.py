"""What a velocity will take on an H100, a v5e, and on clusters of them, read off the compiler: no chip is needed.

    python benchmarks/forecast.py [--quick] [--only chips] [--patience 180]

XLA compiles each program for chips that are not here. Its text says how many kernels are launched, the bytes that they
move, the messages between chips and their bytes. Data-sheet rates turn these into a time: a forecast, not a
measurement. It needs the wheels of the extra `aot`. Programs whose compiler takes longer than `--patience` seconds are
left out.

Prints the tables and writes them to `benchmarks/results/forecast.json` and `.md`; with `--only` the table that it makes
is put in the place of the one that is there. Exits with 1 if a claim fails: no chip gathers particles, messages are as
large as a formula says, and 64 H100s are as efficient as one. About fifteen minutes on two cores.
"""

import argparse
import functools
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# This process reads results alone; those that compile see the chips.
os.environ["JAX_PLATFORMS"] = "cpu"

from _account import Kernel, Message
from _forecast_tables import Found, Program, of_chips, of_clusters, of_growth, with_efficiency
from _options import output_folder
from _report import RESULTS, in_place, stored, summary, write

# L, M, B, D, N+1, k
SIZES = [
    (8, 64, 64, 5, 9, 2),
    (16, 256, 64, 5, 9, 2),
    (16, 1024, 128, 5, 9, 2),
    (64, 4096, 256, 5, 9, 2),
    (8, 32, 16, 17, 65, 8),
    (8, 128, 64, 64, 64, 16),
]
# On clusters of H100s, and on slices of a TPU, whose memory is smaller and whose compiler is slower.
LARGE, SLICE = (64, 65536, 4096, 5, 9, 2), (16, 2048, 256, 5, 9, 2)
QUICK = (2, 8, 8, 5, 9, 2)
# The shape, hosts x chips per host or a rectangle of a TPU, and the parts of prompts and particles.
CLUSTERS = [("1x1", (1, 1)), ("1x8", (8, 1)), ("1x8", (1, 8)), ("8x8", (64, 1)), ("8x8", (8, 8)), ("8x8", (1, 64))]
SLICES = [("2x2", (1, 1)), ("2x2", (4, 1)), ("2x2", (2, 2)), ("4x4", (16, 1)), ("4x4", (4, 4))]


def main() -> int:
    """Compile everything; print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny size on one and two chips, to see that all runs")
    parser.add_argument("--only", choices=("chips", "clusters", "slices"), help="one kind of table")
    parser.add_argument("--patience", type=float, default=180, help="seconds after which a program is left out")
    parser.add_argument("--output", type=output_folder, default=RESULTS, help="the folder to write to")
    options = parser.parse_args()
    compile_one = functools.partial(compiled, patience=options.patience)
    kinds = {"chips": chip_tables, "clusters": cluster_tables, "slices": slice_tables}
    chosen = [quick] if options.quick else [make for kind, make in kinds.items() if options.only in (None, kind)]
    tables = [table for table in stored("forecast", options.output) if options.only and table.title != "Claims"]
    for make in chosen:
        tables = in_place(tables, make(compile_one))
        claims = summary(tables)
        write("forecast", "Forecast by the compiler", [claims, *tables], options.output, quick=options.quick)
    print(*(table.text() for table in tables), claims.text(), sep="\n\n")
    return int(not all(check.holds for table in tables for check in table.checks))


def quick(compile_one) -> list:
    """Two tiny programs, compiled side by side."""
    programs = [Program("h100", "1x1", (1, 1), QUICK), Program("h100", "1x2", (1, 2), QUICK)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(compile_one, programs))
    return [of_chips(programs[:1], found[:1]), of_clusters("one velocity on clusters", programs, found)]


def chip_tables(compile_one) -> list:
    """The table of one chip."""
    programs = [Program("h100", "1x1", (1, 1), size) for size in SIZES]
    return [of_chips(programs, list(map(compile_one, programs)))]


def cluster_tables(compile_one) -> list:
    """The tables of clusters of H100s: at one size, and how messages grow from half the width to the whole."""
    programs = [Program("h100", *cluster, LARGE) for cluster in CLUSTERS]
    found = list(map(compile_one, programs))
    whole = programs.index(Program("h100", "8x8", (8, 8), LARGE))
    depth, width, *rest = LARGE
    half = Program("h100", "8x8", (8, 8), (depth, width // 2, *rest))
    table = of_clusters("one velocity on clusters of H100s", programs, found)
    return [with_efficiency(table), of_growth((half, compile_one(half)), (programs[whole], found[whole]))]


def slice_tables(compile_one) -> list:
    """The table of slices of a TPU v5e."""
    programs = [Program("v5e", *each, SLICE) for each in SLICES]
    return [of_clusters("one velocity on slices of a TPU v5e", programs, list(map(compile_one, programs)))]


def compiled(program: Program, patience: float) -> Found | None:
    """The account of one program, from a process of its own; None if it does not fit or takes too long."""
    asked = {"chip": program.chip, "shape": program.shape, "mesh": program.mesh, "size": program.size}
    command = [sys.executable, str(Path(__file__).with_name("_forecast_program.py")), json.dumps(asked)]
    # The programs that users get: in float32, with XLA's own flags.
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience, env=environment)
    except subprocess.TimeoutExpired:
        print(f"{program.text} is left out: its compiler takes more than {patience:g} s", flush=True)
        return None
    if exceeded := re.search(r"RESOURCE_EXHAUSTED.*", done.stderr):
        print(f"{program.text} does not fit: {exceeded[0][:200]}", flush=True)
        return None
    if done.returncode:
        raise RuntimeError(f"{program.text} must compile; got {done.stderr[-2000:]}. Install the extra `aot`.")
    found = json.loads(done.stdout.splitlines()[-1])
    kernels = [Kernel(*fields) for fields in found.pop("kernels")]
    messages = [Message(kind, size, tuple(group), times) for kind, size, group, times in found.pop("messages")]
    print(f"{program.text}: compiled in {found['seconds']:.0f} s", flush=True)
    return Found(kernels=kernels, messages=messages, **found)


if __name__ == "__main__":
    sys.exit(main())
