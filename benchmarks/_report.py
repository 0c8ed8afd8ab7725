"""What benchmark scripts report: tables as text, Markdown and JSON, checks of claims, where and when they ran."""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

import wgf

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "equinox", "diffrax", "lineax", "optimistix", "numpy", "scipy")
Cell = str | int | float | bool | None


@dataclasses.dataclass(frozen=True)
class Check:
    """A claim and the number measured for it, which must lie in [low, high]."""

    claim: str
    value: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether the number lies within the bounds; NaN does not."""
        return bool(self.low <= self.value <= self.high)


@dataclasses.dataclass(frozen=True)
class Table:
    """A title, named columns, rows of cells, a note on what is to be seen, and the checks that its numbers pass.

    Cells are strings, whole numbers, floats (shown with three digits, kept whole in JSON), booleans, or None where
    there is no value.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    checks: Sequence[Check] = ()

    def __post_init__(self):
        bad = [row for row in self.rows if len(row) != len(self.columns)]
        if bad:
            raise ValueError(f"`rows` of {self.title!r} must have {len(self.columns)} cells each; got {bad[0]}.")

    def text(self) -> str:
        """Aligned columns for a terminal."""
        grid = [list(self.columns), *self._shown()]
        widths = [max(len(row[i]) for row in grid) for i in range(len(self.columns))]
        lines = [
            "  ".join(self._align(i, cell, width) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
            for row in grid
        ]
        rule = "-" * len(lines[0])
        return "\n".join([self.title, rule, lines[0].rstrip(), rule, *(line.rstrip() for line in lines[1:]), self.note])

    def markdown(self) -> str:
        """A section with a Markdown table."""
        numeric = [self._numeric(i) for i in range(len(self.columns))]
        grid = [list(self.columns), ["--:" if right else "---" for right in numeric], *self._shown()]
        lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in grid]
        return "\n".join([f"## {self.title}", "", *lines, "", self.note, ""]).rstrip() + "\n"

    def _shown(self) -> list[list[str]]:
        return [[show(cell) for cell in row] for row in self.rows]

    def _numeric(self, column: int) -> bool:
        return not any(isinstance(row[column], str) for row in self.rows)

    def _align(self, column: int, cell: str, width: int) -> str:
        return cell.rjust(width) if self._numeric(column) else cell.ljust(width)


def show(cell: Cell) -> str:
    """A cell as people read it."""
    if cell is None:
        return "–"
    if isinstance(cell, (bool, np.bool_)):
        return "yes" if cell else "no"
    if isinstance(cell, (str, int, np.integer)):
        return str(cell)
    plain = cell == 0 or 1e-2 <= abs(cell) < 1e4
    return f"{cell:.3g}" if plain and abs(cell) < 1e3 else f"{cell:.0f}" if plain else f"{cell:.1e}"


def orders(sizes: Sequence[float], errors: Sequence[float]) -> list[float | None]:
    """The order seen between each refinement and the one before; None for the first."""
    ratios = np.diff(np.log(errors)) / np.diff(np.log(sizes))
    return [None, *(float(r) for r in ratios)]


def slope(sizes: Sequence[float], errors: Sequence[float]) -> float:
    """The least-squares slope of log error against log size."""
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


def order_check(claim: str, measured: float, order: int) -> Check:
    """The claim of an order: to ±0.2 up to the third.

    Methods of order five and more are made so that their leading error terms nearly vanish: on smooth problems errors
    fall by the next order until rounding ends what can be seen. For these the band reaches one order up.
    """
    low, high = (0.2, 0.2) if order <= 3 else (0.3, 1.2)
    return Check(claim, measured, order - low, order + high)


def summary(tables: Sequence[Table]) -> Table:
    """All checks of the tables, as a table."""
    checks = [check for table in tables for check in table.checks]
    rows = [(c.claim, c.value, c.low, c.high, "holds" if c.holds else "FAILS") for c in checks]
    return Table("Claims", ("claim", "measured", "from", "to", ""), rows)


def header() -> dict:
    """Where, when and with what this runs."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain", "--", "wgf") else ""),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "devices": ", ".join(sorted({device.device_kind for device in jax.devices()})),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": {"wgf": wgf.__version__} | {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def stored(name: str, folder: Path = RESULTS) -> list[Table]:
    """The tables of `name`.json in the folder; none where there is no such file."""
    path = folder / f"{name}.json"
    tables = (
        [Table(**fields) for fields in json.loads(path.read_text(encoding="utf-8"))["tables"]] if path.exists() else []
    )
    return [dataclasses.replace(old, checks=[Check(**fields) for fields in old.checks]) for old in tables]


def in_place(old: Sequence[Table], new: Sequence[Table]) -> list[Table]:
    """The old tables, with new ones in the place of those of the same title, or at the end."""
    return list({table.title: table for table in [*old, *new]}.values())


def write(name: str, title: str, tables: Sequence[Table], folder: Path = RESULTS, **facts: object) -> None:
    """Write `name`.json and `name`.md to the folder; `facts` join the header."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {**header(), **facts}
    report = {**about, "tables": [dataclasses.asdict(table) for table in tables]}
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1, default=_plain) + "\n", encoding="utf-8")
    versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    lines = [
        f"# {title}",
        "",
        f"{about['date'][:10]}, {about['cores']} cores of {about['machine']}, Python {about['python']}, {versions}.",
        "",
    ]
    text = "\n".join([*lines, *(table.markdown() for table in tables)])
    (folder / f"{name}.md").write_text(text, encoding="utf-8")


def _git(*command: str) -> str:
    done = subprocess.run(
        ["git", *command], cwd=Path(__file__).parents[1], capture_output=True, encoding="utf-8", check=False
    )
    return done.stdout.strip()


def _plain(value: object) -> object:
    return value.item() if hasattr(value, "item") else str(value)  # pyright: ignore[reportAttributeAccessIssue]
