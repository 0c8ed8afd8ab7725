"""Work against precision: outputs of the trained limit by finite Transformers and by the PDE solver's samplings.

    python benchmarks/work_precision.py [--quick] [--reference] [--problem 55] [--only staged] [--draw]

What is computed: the outputs at τ of the mean-field limit, for all prompts of a problem. What is shown: their error
(root mean square over prompts and seeds, relative to that of the labels) against the evaluations of heads that the
whole job took, and against its seconds (compiled before). Costs at an error lie between measured points, or are left
out: nothing is extrapolated. Sizes were not tuned on the third problem.

The rule of counting: one velocity of a model costs as many evaluations as the model has particles at all layers or
stages of its depth solve; pilots and tracers count the same, and so does each evaluation of the encoder for features.
Every job, the reference too, takes the same steps in τ by the same method.

The reference is a mean of large independent replicates by plain samples; `--reference` computes it (some minutes a
problem) and writes it, with its errors, into the results folder, where a plain run reads it. Each job's numbers are
written as soon as they are there, in the place of older ones: a part (`--problem`, `--only`) can be measured anew, and
an interrupted run continued by `--missing`. A problem for each core can be run at the same time, in processes of their
own; set `XLA_FLAGS=--xla_cpu_multi_thread_eigen=false` to keep each on its core.
"""

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

if "--quick" in sys.argv:
    # Small problems run for milliseconds: what counts is the time to compile.
    fast = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    os.environ.setdefault("XLA_FLAGS", fast)

import jax
import numpy as np
from _options import output_folder
from _report import RESULTS, Table, header
from _work_jobs import WHITENED, Job, Problem, jobs, problems, same, solve, staged
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

import wgf
from wgf.measures import EqualEighths, ThreeEighths
from wgf.plot._style import ACCENT, CLOUD, LIMIT, LOCAL, colours

LEVELS = (1e-2, 3e-3, 1e-3)
PLAIN = "finite, i.i.d."


def main() -> int:
    """Measure what is asked for; print and write table, numbers and figure."""
    options = _options()
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"work_precision{'_quick' * options.quick}.json"
    for name, problem in problems().items():
        if not options.draw and options.problem in name:
            _measure_all(name, problem, path, options)
    report = _read(path)
    figure(report).savefig(path.with_suffix(".png"), dpi=130)
    for name, found in report.items():
        if PLAIN in variants(found):
            tables = (needed(name, found, "evaluations"), needed(name, found, "seconds"), every_run(name, found))
            print(*(table.text() for table in tables), sep="\n\n", end="\n\n")
    return 0


def _measure_all(name: str, problem: Problem, path: Path, options: argparse.Namespace) -> None:
    """Add a problem's numbers to the report, and write it after each."""
    found = _read(path).get(name, {"label_rms": problem.label_rms(), "steps": problem.steps, "runs": []})
    if options.reference or "reference" not in found:
        found["reference"] = reference(problem, 256, 2) if options.quick else reference(problem, 4096, 64)
        _write(path, name, found)
    for job in jobs(name, options.quick):
        old = [row for row in found["runs"] if (row["variant"], row["size"]) == job[:2]]
        if options.only in job.variant and not (options.missing and old):
            row = measure(problem, job, np.asarray(found["reference"]["outputs"]))
            found["runs"] = [other for other in found["runs"] if other not in old] + [row]
            _write(path, name, found)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small problem at tiny sizes, to see that all runs")
    parser.add_argument("--reference", action="store_true", help="compute the references anew")
    parser.add_argument("--problem", default="", help="only problems whose name holds this text")
    parser.add_argument("--only", default="", help="only variants whose name holds this text")
    parser.add_argument("--missing", action="store_true", help="only jobs without numbers")
    parser.add_argument("--draw", action="store_true", help="measure nothing: table and figure of what is there")
    parser.add_argument("--results", type=output_folder, default=RESULTS, help="the folder to read from and write to")
    options = parser.parse_args()
    if options.quick and not options.problem:
        options.problem = "attention"
    return options


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _write(path: Path, name: str, found: dict) -> None:
    """Write one problem's numbers. Those of others may have changed meanwhile."""
    path.write_text(json.dumps(_read(path) | {name: found}, indent=1) + "\n", encoding="utf-8")


def measure(problem: Problem, job: Job, truth: np.ndarray) -> dict:
    """Errors and cost of one job over 6 to 48 seeds, about 40 s. The first, which compiles, is not timed."""
    jax.clear_caches()
    outputs, seconds = [], []
    while len(outputs) < 6 or (len(outputs) < 48 and sum(seconds) < 40):
        start = time.perf_counter()
        found, evaluations = job.run(problem, jax.random.key(len(outputs)))
        if outputs:
            seconds.append(time.perf_counter() - start)
        outputs.append(found)
    seeds, outputs = len(outputs), np.stack(outputs)
    errors = np.sqrt(np.mean((outputs - truth) ** 2, axis=1)) / problem.label_rms()
    error = float(np.sqrt(np.mean(errors**2)))
    row = {
        **{key: header()[key] for key in ("date", "commit", "cores", "devices")},
        "variant": job.variant,
        "size": job.size,
        "evaluations": evaluations,
        "seconds": float(np.median(seconds)),
        "errors": errors.tolist(),
        "error": error,
        "error_bar": float(np.std(errors**2, ddof=1) / np.sqrt(seeds) / (2 * error)),
    }
    print(f"{job.variant:28s} {job.size:30s} {evaluations:9d} {row['seconds']:7.2f} s {error:9.2e}", flush=True)
    return row


def reference(problem: Problem, width: int, replicates: int) -> dict:
    """The mean over replicates of the whitened solution at the four stages of the 3/8 rule, with its errors."""
    job = staged("reference", WHITENED, width, ThreeEighths(), joint=False)
    keys = jax.random.split(jax.random.key(2**20), replicates)
    outputs = np.stack([job.run(problem, key).outputs for key in keys])
    variance = outputs.var(axis=0, ddof=1) / replicates
    found = {
        **header(),
        "sampling": f"staged, whitened: {replicates} replicates of {job.size} particles",
        "outputs": outputs.mean(axis=0).tolist(),
        "standard_error": float(np.sqrt(variance.mean())) / problem.label_rms(),
        "outer_error": _error_of_steps(problem),
        "depth_error": _error_of_depth(problem, ThreeEighths()),
        "equal_eighths_depth_error": _error_of_depth(problem, EqualEighths()),
    }
    print(found["sampling"], *(f"{key} {found[key]:.1e}" for key in found if key.endswith("error")), flush=True)
    return found


def _error_of_steps(problem: Problem) -> float:
    """The error of the steps in τ, which the reference and all jobs share: against twice as many."""
    model = wgf.AveragedODE(
        problem.encoder, problem.law(WHITENED).staged(512, jax.random.key(1), solver=ThreeEighths())
    )
    few, many = (solve(problem, model, steps) for steps in (problem.steps, 2 * problem.steps))
    return _distance(problem, few, many)


def _error_of_depth(problem: Problem, solver) -> float:
    """The error of the one step in depth at τ, of a sample that all depths share: against two."""
    measures = (same(problem, WHITENED, 512, jax.random.key(1), solver, steps) for steps in (1, 2))
    few, many = (solve(problem, wgf.AveragedODE(problem.encoder, m), problem.steps) for m in measures)
    return _distance(problem, few, many)


def _distance(problem: Problem, first: wgf.flows.FlowSolution, second: wgf.flows.FlowSolution) -> float:
    change = np.asarray(first.outputs[-1], np.float64) - np.asarray(second.outputs[-1], np.float64)
    return float(np.sqrt(np.mean(change**2))) / problem.label_rms()


def variants(found: dict) -> list[str]:
    """The variants of a problem, each once."""
    return list(dict.fromkeys(row["variant"] for row in found["runs"]))


def ladder(found: dict, variant: str, *keys: str) -> list[np.ndarray]:
    """Columns of one variant's runs, by rising cost."""
    chosen = sorted((row for row in found["runs"] if row["variant"] == variant), key=lambda row: row["evaluations"])
    return [np.array([row[key] for row in chosen]) for key in keys]


def cost_at(costs: np.ndarray, errors: np.ndarray, level: float) -> float | None:
    """The cost of an error, log-log between points. It is the first point's if that errs less; None beyond the last."""
    reached = np.flatnonzero(errors <= level)
    if len(reached) == 0:
        return None
    last = reached[0]
    if last == 0:
        return float(costs[0])
    x, y = np.log(costs[last - 1 : last + 1]), np.log(errors[last - 1 : last + 1])
    return float(np.exp(np.interp(np.log(level), y[::-1], x[::-1])))


def needed(name: str, found: dict, unit: str) -> Table:
    """For each variant its cost at each level, and how many times less that is than the plain finite model's."""
    costs = {
        variant: [cost_at(*ladder(found, variant, unit, "error"), level) for level in LEVELS]
        for variant in variants(found)
    }
    rows = [
        (variant, *(_cell(*pair) for pair in zip(row, costs[PLAIN], strict=True))) for variant, row in costs.items()
    ]
    note = "x: times less than the plain finite Transformer."
    title = f"{unit.capitalize()} for a relative error of the outputs: {name}"
    return Table(title, ("variant", *(f"at {level:g}" for level in LEVELS)), rows, note)


def _cell(cost: float | None, base: float | None) -> str | None:
    if cost is None or base is None:
        return None if cost is None else f"{cost:.2g}"
    return f"{cost:.2g} {base / cost:6.1f}x"


def every_run(name: str, found: dict) -> Table:
    """Each measured job."""
    keys = ("variant", "size", "evaluations", "seconds", "error", "error_bar")
    rows = [tuple(row[key] for key in keys) for row in found["runs"]]
    errors = ", ".join(f"{key.replace('_', ' ')} {found['reference'][key]:.1e}" for key in _errors(found["reference"]))
    return Table(f"Runs: {name}", (*keys[:-1], "+-"), rows, f"Reference: {found['reference']['sampling']}; {errors}.")


def _errors(found: dict) -> Iterable[str]:
    return (key for key in found if key.endswith("error"))


def line_styles(every: list[str]) -> dict[str, dict]:
    """Colour, mark and dash of each variant: a scale from light to dark for the PDE's, dashes for the finite models.

    A scale has room for six colours that are told apart. The last of seven variants has one of its own.
    """
    finite = [variant for variant in every if variant.startswith("finite")]
    others = [variant for variant in every if variant not in finite]
    pairs = [
        *zip(others, colours(min(len(others), 6)) + [ACCENT] * (len(others) > 6), strict=True),
        *zip(finite, itertools.cycle((LOCAL, LIMIT)), strict=False),
    ]
    marks = zip(pairs, itertools.cycle("os^Dv<P>X"), strict=False)
    return {
        variant: {"color": colour, "marker": mark, "ls": "--" if variant in finite else "-"}
        for (variant, colour), mark in marks
    }


def figure(report: dict) -> Figure:
    """Errors against evaluations of heads and against seconds, a row for each problem."""
    every = list(dict.fromkeys(variant for found in report.values() for variant in variants(found)))
    styles = line_styles(every)
    drawing = Figure(figsize=(12, 4.4 * len(report) + 0.6), layout="constrained")
    grid = drawing.subplots(len(report), 2, squeeze=False, sharey="row")
    for axes, (name, found) in zip(grid, report.items(), strict=True):
        columns = {"evaluations": "evaluations of heads, whole job", "seconds": "seconds, compiled before"}
        for axis, (column, label) in zip(axes, columns.items(), strict=True):
            for variant in variants(found):
                cost, error, bar = ladder(found, variant, column, "error", "error_bar")
                axis.errorbar(cost, error, bar, **styles[variant], ms=4, lw=1.4, capsize=2, label=variant)
            own = found["reference"]["standard_error"]
            axis.axhline(own, color=CLOUD, lw=1, ls=":", label="reference's own standard error")
            axis.set(xscale="log", yscale="log", xlabel=label, title=name)
            axis.yaxis.set_minor_locator(LogLocator(subs=range(2, 10)))
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.grid(alpha=0.25)
        axes[0].set_ylabel("relative RMS error of the outputs")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return drawing


if __name__ == "__main__":
    sys.exit(main())
