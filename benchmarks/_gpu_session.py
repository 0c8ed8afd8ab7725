"""One session on a card: a budget of time, lines that are kept as soon as they are known, and what was left out."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from _report import Cell, Check, Table, show, write

LEFT_OUT = "Left out"


@dataclasses.dataclass(frozen=True)
class Job:
    """A part of the session: its name, the seconds that it takes on a card, and what runs."""

    name: str
    seconds: float
    run: Callable[["Session"], None]


class Session:
    """Rows of tables that are printed and written to `gpu.json` and `gpu.md` one by one, so that a cut run keeps them.

    `titles` gives each table's columns and note, `facts` what joins the header of the file.
    """

    def __init__(self, titles: dict[str, tuple[Sequence[str], str]], folder: Path, minutes: float, **facts: Cell):
        self._titles = {**titles, LEFT_OUT: (("job", "why"), "")}
        self._folder, self._facts = folder, facts
        self._end = time.monotonic() + 60 * minutes
        self._rows: dict[str, list[Sequence[Cell]]] = {title: [] for title in self._titles}
        self._checks: dict[str, list[Check]] = {title: [] for title in self._titles}

    @property
    def left(self) -> float:
        """The seconds that are left of the budget."""
        return self._end - time.monotonic()

    def run(self, jobs: Sequence[Job]) -> None:
        """Run jobs in their order. Those that the budget does not hold, or that fail, are named; the rest goes on."""
        for job in jobs:
            if job.seconds > self.left:
                self.leave_out(job.name, f"takes about {job.seconds:.0f} s; {max(0, self.left):.0f} s were left")
                continue
            try:
                job.run(self)
            except Exception as error:  # whatever a compiler or a card may raise
                self.leave_out(job.name, reason(error))
                self.claim(LEFT_OUT, Check(f"{job.name}: fails", 1, 0, 0))

    def line(self, title: str, *cells: Cell) -> None:
        """Add a row to a table, print it, and write the file."""
        self._rows[title].append(cells)
        print(f"[{self.left:.0f} s left] {title}: {', '.join(map(show, cells))}"[:160], flush=True)
        self._write()

    def claim(self, title: str, check: Check) -> None:
        """Add a claim to a table."""
        self._checks[title].append(check)
        print(f"{check.claim}: {show(check.value)}, {'holds' if check.holds else 'FAILS'}"[:160], flush=True)
        self._write()

    def leave_out(self, name: str, why: str) -> None:
        """Name what was not measured."""
        self.line(LEFT_OUT, name, why)

    @property
    def checks(self) -> list[Check]:
        """All claims."""
        return [check for checks in self._checks.values() for check in checks]

    def tables(self) -> list[Table]:
        """The claims, and the tables that have rows."""
        rows = [(c.claim, c.value, c.low, c.high, "holds" if c.holds else "FAILS") for c in self.checks]
        claims = Table("Claims", ("claim", "measured", "from", "to", ""), rows)
        found = [
            Table(title, columns, self._rows[title], note, self._checks[title])
            for title, (columns, note) in self._titles.items()
            if self._rows[title]
        ]
        return [claims, *found]

    def _write(self) -> None:
        write("gpu", "One accelerator", self.tables(), self._folder, **self._facts)


def reason(error: Exception) -> str:
    """The kind of an error and the beginning of its text."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}"
