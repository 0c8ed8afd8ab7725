"""How time, memory and compilation of the flow grow with its sizes.

    python benchmarks/growth.py [--quick] [--only speed memory compilation main]

- speed: seconds and scratch memory of one velocity against particles M, layers L, prompts B and tokens N + 1 of a
  prompt, with the exponents of both (least squares over the whole ladder).
- memory: the largest size, in a process of its own: its peak memory, and its time for each particle and prompt next
  to that of a size where nothing is cut in pieces; and an encoder of one's own in chunks next to all at once.
- compilation: seconds to trace and compile a flow against L, M and the number of saved τ.
- main: the share of the main job's time that goes into tracing and compilation, with JAX's persistent cache or not.

Prints the tables and writes them to `benchmarks/results/growth.json` and `.md`. Exits with 1 if a claim fails. About
twenty minutes on two cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _options import output_folder
from _problems import Regression
from _report import RESULTS, Check, Table, in_place, slope, stored, summary, write

import wgf
from wgf.encoders import AbstractEncoder, plain_mean
from wgf.experiments import LimitConfig

MIB = 2**20
BASE = {"M": 512, "L": 8, "B": 64, "N+1": 9}
LADDERS = {"M": (128, 256, 512, 1024, 2048), "L": (2, 4, 8, 16, 32), "B": (16, 32, 64, 128, 256), "N+1": (3, 5, 9, 17)}
QUICK_BASE = {"M": 16, "L": 2, "B": 4, "N+1": 5}
QUICK_LADDERS = {"M": (16, 32), "L": (2, 4), "B": (4, 8), "N+1": (3, 5)}
LARGEST = {"L": 64, "M": 4096, "B": 256, "N+1": 9}


def main() -> int:
    """Run the parts, print and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--output", type=output_folder, default=RESULTS, help="the folder to write to")
    parser.add_argument("--velocity", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.velocity:
        return largest(dict(zip(LARGEST, map(int, options.velocity.split(",")), strict=True)))
    # Parts alone keep the tables of the others, all but the claims.
    old = [] if options.quick else stored("growth", options.output)[1:]
    tables: list[Table] = []
    for name in options.only:
        for table in PARTS[name](options.quick):
            tables.append(table)
            kept = in_place(old, tables)
            claims = summary(kept)
            write("growth", "Growth", [claims, *kept], options.output, quick=options.quick)
            print(table.text(), end="\n\n", flush=True)
            jax.clear_caches()
    print(claims.text())
    return int(not options.quick and not all(check.holds for table in tables for check in table.checks))


def problem(size: dict[str, int]) -> tuple[wgf.Objective, wgf.Transformer]:
    """In-context regression by heads of key dimension 2 and neurons on tokens of 5 entries."""
    made = Regression(batch=size["B"], examples=size["N+1"] - 1, width=size["M"])
    return made.objective, made.finite(size["L"])


def compiled_velocity(size: dict[str, int]):
    """A compiled velocity, its arguments, and the MiB of its scratch memory."""
    arguments = problem(size)
    compiled = jax.jit(wgf.velocity).lower(*arguments).compile()
    return compiled, arguments, compiled.memory_analysis().temp_size_in_bytes / MIB


def median_seconds(function, arguments, repeats: int) -> float:
    """The median over repeats, after one call that is not counted."""
    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def speed_tables(quick: bool):
    """Seconds and memory along each ladder, and the exponents."""
    base, ladders = (QUICK_BASE, QUICK_LADDERS) if quick else (BASE, LADDERS)
    rows, fits, checks = [], [], []
    for name, ladder in ladders.items():
        times, scratch = [], []
        for value in ladder:
            compiled, arguments, mib = compiled_velocity({**base, name: value})
            times.append(median_seconds(compiled, arguments, 1 if quick else 5))
            scratch.append(mib)
            rows.append((name, value, 1e3 * times[-1], scratch[-1]))
        exponents = slope(ladder, times), slope(ladder, scratch)
        fits.append((name, f"{ladder[0]} to {ladder[-1]}", *exponents))
        if name != "N+1":
            checks.append(Check(f"time of a velocity is linear in {name}", exponents[0], 0.8, 1.1))
        checks.append(Check(f"scratch memory grows no faster than {name}", exponents[1], -0.2, 1.1))
    shape = ", ".join(f"{name} = {value}" for name, value in base.items())
    yield Table("One velocity", ("varied", "value", "ms", "scratch MiB"), rows, f"The others: {shape}; float32.")
    note = "Least squares of logarithms. Per prompt and head, scores are (N+1)²: between 1 and 2 is what N+1 must show."
    yield Table("Exponents", ("in", "range", "of time", "of memory"), fits, note, checks)


def largest(size: dict[str, int]) -> int:
    """Print seconds of a velocity, and the process's peak MiB: run in a process of its own."""
    compiled, arguments, scratch = compiled_velocity(size)
    seconds = median_seconds(compiled, arguments, 3)
    peak = next(
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")
    )
    print(seconds, int(peak.split()[1]) / 1024, scratch)
    return 0


def apart(size: dict[str, int]) -> tuple[float, float, float]:
    """Seconds, peak MiB and scratch MiB of a velocity in a process of its own."""
    command = [sys.executable, __file__, "--velocity", ",".join(str(size[name]) for name in LARGEST)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak, scratch = map(float, done.stdout.split()[-3:])
    return seconds, peak, scratch


class Head(AbstractEncoder):
    """Softmax attention written as a user would, without a fused mean."""

    token_dim: int

    def sample(self, key, shape):
        """Draw values and scores."""
        value, score = jax.random.normal(key, (2, *shape, self.token_dim, self.token_dim))
        return {"value": value, "score": score}

    def __call__(self, particle, tokens):
        """Apply one head."""
        return particle["value"] @ tokens @ jax.nn.softmax(tokens.T @ particle["score"] @ tokens, axis=0)


def memory_tables(quick: bool):
    """The largest size next to a small one; an encoder of one's own in chunks next to all at once."""
    tile = {**LARGEST, "L": 16, "M": 64, "B": 16}
    sizes = [tile, QUICK_BASE] if quick else [tile, {**LARGEST, "L": 16, "M": 1024, "B": 128}, LARGEST]
    rows, rates = [], []
    for size in sizes:
        seconds, peak, scratch = apart(size)
        rates.append(1e9 * seconds / (size["L"] * size["M"] * size["B"]))
        rows.append((f"({size['L']}, {size['M']}, {size['B']})", seconds, rates[-1], peak, scratch))
    checks = [
        Check("peak GiB at the largest size", rows[-1][3] / 1024, 0, 4),
        Check("its time a particle and prompt, over that of a size in one piece", rates[-1] / rates[0], 0.3, 1.3),
    ]
    note = "Peak: of the whole process, with Python and XLA. The first size is one tile: nothing is cut."
    columns = ("(L, M, B)", "seconds", "ns a particle and prompt", "peak MiB", "scratch MiB")
    yield Table("Large sizes", columns, rows, note, [] if quick else checks)
    yield chunks(quick)


def chunks(quick: bool) -> Table:
    """A user's head, all at once and in chunks."""
    encoder, width, batch = Head(5), *((64, 8) if quick else (2048, 128))
    particles = encoder.sample(jax.random.key(0), (width,))
    tokens = jax.random.normal(jax.random.key(1), (batch, 5, 9))
    arguments = particles, jnp.full(width, 1 / width), tokens
    means = {
        "all at once": lambda *args: plain_mean(encoder, *args),
        "in chunks, by itself": encoder.mean,
        "in chunks of 256 and 32": wgf.encoders.Chunked(encoder, particles=256, prompts=32).mean,
    }
    compiled = {name: jax.jit(gradients(mean)).lower(*arguments).compile() for name, mean in means.items()}
    seconds: dict[str, list[float]] = {name: [] for name in compiled}
    for _ in range(1 if quick else 7):
        for name, function in compiled.items():
            seconds[name].append(median_seconds(function, arguments, 1))
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    scratch = {name: c.memory_analysis().temp_size_in_bytes / MIB for name, c in compiled.items()}
    rows = [(name, 1e3 * medians[name], scratch[name]) for name in means]
    first, own = list(means)[:2]
    checks = [
        Check("time of chunks over all at once", medians[own] / medians[first], 0.1, 1.3),
        Check("memory of chunks over all at once", scratch[own] / scratch[first], 0, 0.2),
    ]
    title = f"A mean and its gradients, an encoder of one's own, M = {width}, B = {batch}"
    return Table(title, ("", "ms", "scratch MiB"), rows, "", [] if quick else checks)


def gradients(mean):
    """A mean with its pullback of the tokens themselves."""

    def compute(particles, weights, tokens):
        value, pull = jax.vjp(mean, particles, weights, tokens)
        return value, pull(tokens)

    return compute


def compilation_tables(quick: bool):
    """Seconds to compile a flow against its sizes."""
    base = {"L": 4, "M": 16, "saves": 3}
    ladders = {"L": (4, 8), "saves": (3, 9)} if quick else {"L": (4, 32, 256), "M": (16, 256, 4096), "saves": (3, 300)}
    rows, checks = [], []
    for name, ladder in ladders.items():
        seconds = []
        for value in ladder:
            size = {**base, name: value}
            seconds.append(min(compile_seconds(**size) for _ in range(1 if quick else 3)))
            rows.append((*size.values(), seconds[-1]))
        checks.append(Check(f"compile time along {name}, last over first", seconds[-1] / seconds[0], 0.5, 1.5))
    note = "Tracing, lowering and compiling wgf.flow; the best of three. Compilation repeated in the same process."
    yield Table("Compilation of a flow", ("L", "M", "saves", "seconds"), rows, note, [] if quick else checks)


def compile_seconds(L: int, M: int, saves: int) -> float:
    """Seconds from Python to a program."""
    jax.clear_caches()
    objective, model = problem({"L": L, "M": M, "B": 8, "N+1": 5})
    taus = jnp.linspace(0, 1, saves)
    start = time.perf_counter()
    jax.jit(lambda objective, model: wgf.flow(objective, model, taus, throw=False).outputs).lower(
        objective, model
    ).compile()
    return time.perf_counter() - start


# The main job and the same again in one process, where nothing is left to compile.
_MAIN_JOB = """
import sys, time
from wgf.experiments import LimitConfig, limit
quick, width = sys.argv[1] == "quick", int(sys.argv[2])
config = LimitConfig.quick_default() if quick else LimitConfig(width=width)
for _ in range(2):
    start = time.perf_counter()
    result = limit.run(config, show_progress=False)
    result.table(), result.arrays(), result.figure()
    print(time.perf_counter() - start)
"""


def main_tables(quick: bool):
    """The main job's share of tracing and compilation: at its default, twice with a cache, and with fewer particles."""
    default = LimitConfig().width
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # Diffrax's checks are calls to the host, which JAX does not keep.
        settings = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "EQX_ON_ERROR": "off"}
        cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache", **settings}
        jobs = [
            ("no cache", {}, default, 3),
            ("fills a cache", cache, default, 1),
            ("from the cache", cache, default, 2),
            ("no cache", {}, default // 4, 2),
        ]
        for name, environment, width, times in jobs[:3] if quick else jobs:
            command = [sys.executable, "-c", _MAIN_JOB, "quick" if quick else "default", str(width)]
            options = {"capture_output": True, "text": True, "check": True, "env": {**os.environ, **environment}}
            runs = [subprocess.run(command, **options).stdout.split() for _ in range(1 if quick else times)]
            # What else goes on in the machine only ever adds.
            first, again = map(float, np.min(np.array(runs, float), axis=0))
            rows.append((name, width, first, again, 1 - again / first))
    note = (
        "Share: what the first run takes longer than the same again in one process. The best of three processes at the "
        "default without a cache, of two in the other rows; one fills the cache."
    )
    columns = ("main job", "particles a stage", "first run", "again", "share")
    yield Table("Compilation in the main job", columns, rows, note, [] if quick else main_checks(rows))


def main_checks(rows: list[tuple]) -> list[Check]:
    """The claims on the main job at its default, without a cache and from a filled one."""
    return [
        Check("share of the main job's time that compiles", rows[0][-1], 0, 1 / 3),
        Check("share that a filled cache leaves, of the share without one", rows[2][-1] / rows[0][-1], 0, 0.9),
        Check("seconds of the main job, compilation included", rows[0][2], 0, 120),
    ]


PARTS = {"speed": speed_tables, "memory": memory_tables, "compilation": compilation_tables, "main": main_tables}

if __name__ == "__main__":
    sys.exit(main())
