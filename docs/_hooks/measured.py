"""Tables of the benchmark pages, made from `benchmarks/results`: no number in them is set by hand.

A page says `<!-- results: NAME -->` where the tables of `benchmarks/results/NAME.json` belong, and
`<!-- results: NAME, TITLE -->` where one of them does.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
LEVELS = {"1e-2": 1e-2, "3e-3": 3e-3, "1e-3": 1e-3}
BASE = "finite, i.i.d."

_MARK = re.compile(r"^<!-- results: (\w+)(?:, (.+))? -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_) -> str:
    """The tables in place of each mark."""
    return _MARK.sub(lambda mark: table_of(mark[1], mark[2]) if mark[2] else tables_of(mark[1]), markdown)


def tables_of(name: str) -> str:
    """All tables of a file of results, as Markdown."""
    report = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return LAYOUTS.get(name, plain)(report)


def table_of(name: str, title: str) -> str:
    """One table of a file of results and its note, as Markdown."""
    report = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    found = {each["title"]: each for each in report["tables"]}[title]
    return "\n\n".join([table(found["columns"], found["rows"]), found["note"]])


def plain(report: dict, how: str = "Measured") -> str:
    """Tables as they were measured."""
    parts = [about(report, how)]
    for found in report["tables"]:
        parts += [f"## {found['title']}", table(found["columns"], found["rows"]), found["note"]]
    return "\n\n".join(parts)


def forecast(report: dict) -> str:
    """Tables of what was compiled alone."""
    return plain(report, "Compiled, not run,")


def right_hand_side(report: dict) -> str:
    """Milliseconds of `wgf` called in two ways, and times of the others relative to the plain call."""
    others = {
        "naive": "vmap",
        "einsum": "einsum",
        "torch": "torch",
        "compiled": "compiled",
    }
    columns = ["L, M, B", "D, N+1, k", "precision", "wgf, plain call", "wgf, a device per core", *others.values()]
    rows = []
    for run in report["runs"]:
        size, ratios = run["size"], run["ratio_to_wgf"]
        own = [milliseconds(run["median_seconds"][key]) for key in ("wgf", "spread")]
        sizes = [", ".join(str(size[key]) for key in keys) for keys in (("L", "M", "B"), ("D", "N+1", "k"))]
        rows.append([*sizes, run["dtype"], *own, *(times(ratios[key]) for key in others)])
    errors = [[found["scale"], *(found[key] for key in ("wgf", "naive", "einsum"))] for found in report["errors"]]
    shares = {
        dtype: [run["share_of_floor"] for run in report["runs"] if run["dtype"] == dtype]
        for dtype in ("float32", "float64")
    }
    limits = [[dtype, f"{min(found):.0%}", f"{max(found):.0%}"] for dtype, found in shares.items()]
    return "\n\n".join(
        [
            about(report),
            table(columns, rows),
            "## Share of what the machine's rates of products and exponentials allow",
            table(["precision", "least", "most"], limits),
            "## Relative errors in float32",
            table(["scale of the particles", "wgf", "nested `vmap`", "`einsum`"], errors),
        ]
    )


def divergences(report: dict) -> str:
    """One row per size: the time of `wgf`, those of the others relative to it, and what memory was measured."""
    parts = [about(report)]
    for found in report["tables"]:
        sizes: dict[tuple, dict[str, dict]] = {}
        for row in (dict(zip(found["columns"], cells, strict=True)) for cells in found["rows"]):
            sizes.setdefault((row["n"], row["dtype"]), {})[row["program"]] = row
        programs = list(dict.fromkeys(program for runs in sizes.values() for program in runs))
        weighed = [p for p in programs if any(runs[p]["MiB"] is not None for runs in sizes.values() if p in runs)]
        rows = [
            [n, dtype, milliseconds(runs["wgf"]["seconds"])]
            + [times(runs[program]["by wgf"]) if program in runs else None for program in programs[1:]]
            + [runs[program]["MiB"] if program in runs else None for program in weighed]
            for (n, dtype), runs in sizes.items()
        ]
        columns = ["points", "precision", *programs, *(f"MiB, {program}" for program in weighed)]
        parts += [f"## {found['title']}", table(columns, rows)]
    return "\n\n".join(parts)


def precision(report: dict) -> str:
    """What each way of sampling costs for an error, in evaluations of heads and in seconds, and how many times less."""
    parts = []
    for name, found in report.items():
        ladders: dict[str, list[dict]] = {run["variant"]: [] for run in found["runs"]}
        for run in sorted(found["runs"], key=lambda run: run["evaluations"]):
            ladders[run["variant"]].append(run)
        errors = ", ".join(
            f"{key.replace('_', ' ')} {value:.1e}" for key, value in found["reference"].items() if key.endswith("error")
        )
        costs = [f"*{unit}*\n\n{_costs(ladders, unit)}" for unit in ("evaluations", "seconds")]
        parts += [about(found["reference"]), f"## {name}", *costs, f"Reference: {errors}."]
    return "\n\n".join(parts)


def _costs(ladders: dict[str, list[dict]], unit: str) -> str:
    """What each variant costs for each error."""
    costs = {
        variant: [cost_at([(run[unit], run["error"]) for run in runs], error) for error in LEVELS.values()]
        for variant, runs in ladders.items()
    }
    rows = [
        [variant, *(_saving(*pair) for pair in zip(row, costs[BASE], strict=True))] for variant, row in costs.items()
    ]
    return table(["variant", *LEVELS], rows)


def _saving(cost: float | None, base: float | None) -> str | None:
    if cost is None or base is None:
        return None if cost is None else f"{cost:.2g}"
    return f"{cost:.2g} ({base / cost:.2g}×)"


def cost_at(ladder: Sequence[tuple[float, float]], error: float) -> float | None:
    """The cost of an error, log-log between points; the first point's if that errs less; None beyond the last."""
    reached = next((index for index, (_, found) in enumerate(ladder) if found <= error), None)
    if reached is None:
        return None
    if reached == 0:
        return ladder[0][0]
    (x0, y0), (x1, y1) = (tuple(map(math.log, point)) for point in ladder[reached - 1 : reached + 1])
    return math.exp(x0 + (x1 - x0) * (math.log(error) - y0) / (y1 - y0))


def about(report: dict, how: str = "Measured") -> str:
    """When, where and with which versions the numbers were measured."""
    versions = ", ".join(
        f"{name} {version}" for name, version in (report["versions"] | report.get("peers", {})).items()
    )
    where = f"{report['cores']} cores of {report['machine']}, Python {report['python']}, {versions}"
    return f"*{how} on {report['date'][:10]} at commit `{report['commit'][:8]}`: {where}.*"


def table(columns: Iterable[str], rows: Sequence[Sequence]) -> str:
    """A Markdown table; columns of numbers are aligned to the right."""
    columns = list(columns)
    texts = [
        any(isinstance(row[place], str) and not row[place][:1].isdigit() for row in rows)
        for place in range(len(columns))
    ]
    lines = [columns, ["---" if text else "--:" for text in texts], *([show(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def show(cell: str | float | bool | None) -> str:
    """A cell as people read it: floats with three digits."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, str | int):
        return str(cell)
    if not math.isfinite(cell):
        return "∞" if cell > 0 else str(cell)
    return (
        f"{cell:.3g}"
        if cell == 0 or 1e-2 <= abs(cell) < 1e3
        else f"{cell:,.0f}"
        if 1e3 <= abs(cell) < 1e6
        else f"{cell:.1e}"
    )


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, with three digits."""
    return f"{float(f'{1e3 * seconds:.3g}'):,g} ms"


def times(ratio: float) -> str:
    """A ratio of times, with two digits."""
    return f"{float(f'{ratio:.2g}'):g}×"


LAYOUTS: dict[str, Callable[[dict], str]] = {
    "rhs": right_hand_side,
    "forecast": forecast,
    "sinkhorn": divergences,
    "work_precision": precision,
}
