"""Time debiased Sinkhorn divergences, and curves of them, against OTT, POT and GeomLoss at equal error.

    python benchmarks/sinkhorn.py [--quick] [--only curves] [--largest 16384] [--repeats 5] [--patience 30]

Two Gaussian clouds of n points, one of them moved and stretched, at the ε of `wgf.transport.epsilon_from_scale`. Each
program's knob is tightened until its potentials, the second made exact for the first, give a plan whose marginal is
wrong by at most 1e-3 in the L1 norm, by one measure for all, and values agree to 1 %:

- wgf: `wgf.transport.sinkhorn_divergence`, its kernels held whole; wgf blocks: in blocks of 64 rows;
- OTT: its `Sinkhorn` and `PointCloud` as they are, for each of the three terms;
- POT: `ot.sinkhorn` for each of the three terms, on NumPy's arrays and on PyTorch's;
- GeomLoss: `SamplesLoss("sinkhorn", p=2, backend="tensorized")`.

Along a curve of 20 clouds wgf is `divergence_curve`; OTT and POT too start from the solution for the cloud before and
solve the term of the fixed reference once; GeomLoss, which offers neither, is called cloud by cloud. Seconds are
medians of calls made in turn. Memory is the peak of a process of its own above that of one that solves 64 points. What
is not installed is left out: `pip install "wgf-jax[benchmarks]"`. Each table is written as soon as it is there, in the
place of an older one. Exits with 1 if a goal is missed.
"""

import argparse
import contextlib
import importlib.metadata
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _options import output_folder
from _report import RESULTS, Check, Table, in_place, stored, summary, write
from _sinkhorn_peers import VARIANTS, potentials, worst_error

from wgf.transport import epsilon_from_scale

ERROR = 1e-3
# n, dtypes: large clouds in float32 alone, whose tables fit a small machine several times.
SIZES = [(n, ("float32", "float64") if n <= 1024 else ("float32",)) for n in (256, 1024, 4096, 8192, 16384)]
CURVES = [(1024, ("float32", "float64")), (4096, ("float32",))]
QUICK, QUICK_CURVES = [(64, ("float32", "float64"))], [(64, ("float32",))]
DIMS, SAVES = (2, 55), 20


def main():
    """Run everything, write the files, and say whether the goals are met."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all runs")
    parser.add_argument("--only", choices=("single", "curves"), help="one kind: single divergences, or curves of them")
    parser.add_argument("--largest", type=int, default=16384, help="leave out clouds of more points")
    parser.add_argument(
        "--repeats", type=int, default=5, help="timed calls of each program; above 1024 points 3 at most"
    )
    parser.add_argument(
        "--patience", type=float, default=30, help="seconds of a call after which a program is left out"
    )
    parser.add_argument("--folder", type=output_folder, default=RESULTS)
    parser.add_argument("--peak", nargs=5, metavar=("PROGRAM", "N", "DIM", "DTYPE", "KNOB"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="ot")
    if options.peak:
        return print(json.dumps(peak(*options.peak)))
    kinds = (QUICK, QUICK_CURVES) if options.quick else (SIZES, CURVES)
    sizes, curves = ([size for size in kind if size[0] <= options.largest] for kind in kinds)
    tables = []
    if options.only != "curves":
        search = Search(options.patience)
        tables += compare(sizes, 1, options.repeats, search, 1.0, not options.quick, options.folder)
    if options.only != "single":
        search = Search(options.patience)
        tables += compare(curves, SAVES, min(3, options.repeats), search, 3.0, False, options.folder)
    print(summary(tables).text())
    missed = [check for table in tables for check in table.checks if not check.holds]
    sys.exit(bool(missed) and not options.quick)


def compare(sizes, saves: int, repeats: int, search: "Search", goal: float, memory: bool, folder: Path) -> list[Table]:
    """A table for each dimension."""
    tables = []
    for dim in DIMS:
        rows, checks = [], []
        for n, dtypes in sizes:
            for dtype in dtypes:
                with jax.enable_x64(dtype == "float64"):
                    row = run(n, dim, dtype, saves, min(repeats, 3) if n > 1024 else repeats, search, memory)
                rows += row
                peers = [r[5] for r in row if not r[3].startswith("wgf") and r[5] is not None]
                if peers and n >= 1024:
                    claim = f"{saves} of {n} points, dim {dim}, {dtype}: the faster peer's time by ours"
                    checks.append(Check(claim, min(peers), goal, np.inf))
                engine = [r[5] for r in row if r[3] == "OTT"]
                if engine and n >= 1024:
                    claim = f"{saves} of {n} points, dim {dim}, {dtype}: plain OTT's time by ours"
                    checks.append(Check(claim, engine[0], 2.0, np.inf))
        columns = ("n", "dim", "dtype", "program", "seconds", "by wgf", "MiB", "knob", "L1 error", "value")
        title = f"{saves} divergence{'s' * (saves > 1)} in {dim} dimensions"
        tables.append(Table(title, columns, rows, "by wgf: seconds as a multiple of wgf's.", checks))
        keep(tables[-1], folder)
        print(tables[-1].text(), flush=True)
    return tables


def keep(table: Table, folder: Path):
    """Write a table beside those that are there, in the place of an older one."""
    peers = {}
    for name in ("ott-jax", "POT", "geomloss", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            peers[name] = importlib.metadata.version(name)
    tables = in_place(stored("sinkhorn", folder), [table])
    write("sinkhorn", "Sinkhorn divergences against OTT, POT and GeomLoss", tables, folder, peers=peers)


def run(n: int, dim: int, dtype: str, saves: int, repeats: int, search: "Search", memory: bool) -> list[tuple]:
    """Tune all programs for one problem, time them in turn, and compare their values."""
    problem = clouds(n, dim, dtype, saves)
    first = VARIANTS["wgf"][0](*problem, ERROR)[0]
    tuned = {name: found for name in VARIANTS if (found := search.tune(name, problem, first))}
    seconds, values = {name: [] for name in tuned}, {}
    for _ in range(repeats):
        for name, (knob, _) in tuned.items():
            start = time.perf_counter()
            values[name] = VARIANTS[name][0](*problem, knob)[0]
            seconds[name].append(time.perf_counter() - start)
    base = float(np.median(seconds["wgf"]))
    rows = []
    for name, (knob, error) in tuned.items():
        median, value = float(np.median(seconds[name])), float(values[name][-1])
        mib = megabytes(name, n, dim, dtype, knob) if memory and n >= 4096 else None
        rows.append((n, dim, dtype, name, median, median / base, mib, knob, error, value))
        print(*rows[-1], flush=True)
    spread = max(abs(row[-1] / rows[0][-1] - 1) for row in rows)
    if spread > 0.02:
        raise RuntimeError(f"the programs' values must agree to 2 %; got {spread:.1%} at {(n, dim, dtype)}.")
    return rows


class Search:
    """Finds the knob of each program, for problems of growing size.

    `patience`: the seconds that one call may take, by what it takes for the ends of a curve; a program is left out
    beyond the size where it took more, or where its error stays above.
    """

    def __init__(self, patience: float):
        self.patience = patience
        self.slow = set()

    def tune(self, name: str, problem, expected: np.ndarray) -> tuple[float, float] | None:
        """The loosest knob with the error asked for and values right to 1 %, and the error; None beyond patience.

        The values tell of the clouds' transports to themselves, whose potentials not all programs return.
        """
        dim = problem[1].shape[1]
        # The ends of a curve tell of the rest.
        ends = (problem[0][jnp.asarray([0, -1])] if len(problem[0]) > 1 else problem[0]), *problem[1:]
        expected = np.asarray(expected)[[0, -1]] if len(problem[0]) > 1 else np.asarray(expected)
        knobs = VARIANTS[name][1] if (name, dim) not in self.slow else ()
        reason = f"no knob brings its error to {ERROR}"
        for knob in knobs:
            # The first call may compile: what is slow may try again.
            start = time.perf_counter()
            found = potentials(name, *ends, knob)
            between = time.perf_counter()
            if self._is_slow(between - start, ends, problem):
                potentials(name, *ends, knob)
                if self._is_slow(time.perf_counter() - between, ends, problem):
                    reason = f"a call takes over {self.patience:g} s"
                    break
            error = worst_error(*ends, found)
            if error <= ERROR and np.allclose(VARIANTS[name][0](*ends, knob)[0], expected, rtol=1e-2, atol=0):
                return knob, error
        if knobs:
            print(f"{name} is left out from {problem[1].shape} on: {reason}", flush=True)
            self.slow.add((name, dim))
        return None

    def _is_slow(self, seconds: float, part, whole) -> bool:
        return seconds / len(part[0]) > self.patience / len(whole[0])


def clouds(n: int, dim: int, dtype: str, saves: int):
    """Clouds that move and stretch, from near the reference to a standard deviation away; the reference; ε."""
    key, other = jax.random.split(jax.random.key(n + dim))
    start, reference = jax.random.normal(key, (n, dim), dtype), jax.random.normal(other, (n, dim), dtype)
    way = jnp.ones(dim, dtype) / np.sqrt(dim)
    progress = jnp.linspace(1 / saves, 1, saves, dtype=dtype)[:, None, None]
    moved = start * (1 + progress / 2) + progress * way
    jax.block_until_ready((moved, reference))
    return moved, reference, float(epsilon_from_scale(reference))


def megabytes(name: str, n: int, dim: int, dtype: str, knob: float) -> float | None:
    """The memory of one call, from two processes of their own."""
    used = []
    for points in (64, n):
        command = [sys.executable, __file__, "--peak", name, str(points), str(dim), dtype, str(knob)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        used.append(json.loads(done.stdout.splitlines()[-1]))
    return used[1] - used[0]


def peak(name: str, n: str, dim: str, dtype: str, knob: str) -> float:
    """The most memory that this process held, in MiB, after one divergence."""
    with jax.enable_x64(dtype == "float64"):
        VARIANTS[name][0](*clouds(int(n), int(dim), dtype, 1), float(knob))
    # Linux hands a child its parent's `ru_maxrss`; this one is its own.
    line = next(
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
