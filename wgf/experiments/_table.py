"""Tables in plain text, as an experiment prints them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table in plain text, printed by `str(table)`.

    Each column is as wide as its widest cell. A rule separates the heads from the rows, and the rows from the notes.

    - `heads`: the column heads.
    - `rows`: the cells of each row. A row may be shorter than `heads`. A row that is a single string is a section
      heading and does not count for the column widths.
    - `left`: the indices of the left-aligned columns; all others are right-aligned.
    - `title`: a line above the heads.
    - `notes`: lines below the rows.
    - `gap`: blanks between two columns.
    """

    heads: Sequence[str]
    rows: Sequence[str | Sequence[str]]
    left: Collection[int] = ()
    title: str | None = None
    notes: Sequence[str] = ()
    gap: int = 2

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        widths = self._widths()
        head = self._aligned(self.heads, widths)
        rows = [row if isinstance(row, str) else self._aligned(row, widths) for row in self.rows]
        rule = "-" * max(map(len, [head, *rows]))
        if self.title is not None:
            yield self.title
        yield from (head, rule, *rows)
        if self.notes:
            yield from (rule, *self.notes)

    def _widths(self) -> list[int]:
        lines = [self.heads, *(row for row in self.rows if not isinstance(row, str))]
        return [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(self.heads))]

    def _aligned(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = (
            f"{cell:{'<' if i in self.left else '>'}{width}}"
            for i, (cell, width) in enumerate(zip(cells, widths, strict=False))
        )
        return (" " * self.gap).join(padded).rstrip()


def in_text(tables: Sequence[Table]) -> str:
    """Tables below each other, with an empty line between them."""
    return "\n\n".join(map(str, tables))
