"""Tables in plain text, as an experiment prints them."""

import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

_OF_THE_COLUMN_BEFORE = ("", "+-", "seeds", "error")
"""The heads of columns that say something about the column to their left, and stay beside it."""


@dataclass(frozen=True)
class Table:
    """A table in plain text, printed by `str(table)`.

    Each column is as wide as its widest cell. A rule separates the heads from the rows, and the rows from the notes.

    - `heads`: the column heads. Columns between two heads `|` stay together.
    - `rows`: the cells of each row. A row may be shorter than `heads`. A row that is a single string is a section
      heading and does not count for the column widths.
    - `left`: the indices of the left-aligned columns; all others are right-aligned.
    - `title`: a line above the heads.
    - `notes`: lines below the rows.
    - `gap`: blanks between two columns.
    - `keys`: the number of columns, from the left, that say what a row is about.
    """

    heads: Sequence[str]
    rows: Sequence[str | Sequence[str]]
    left: Collection[int] = ()
    title: str | None = None
    notes: Sequence[str] = ()
    gap: int = 2
    keys: int = 1

    def parts(self, width: int) -> "list[Table]":
        """The table, or tables of some of its columns that are at most `width` wide. Each has the key columns."""
        groups = list(self._chosen(width))
        page = max(width, 20)
        notes = [line for note in _flowing(self.notes) for line in _wrapped(note, page)]
        title = None if self.title is None else "\n".join(_wrapped(self.title, page))
        tables = [replace(self._columns(group), title=title if i == 0 else None) for i, group in enumerate(groups)]
        return [*tables[:-1], replace(tables[-1], notes=notes)]

    def _chosen(self, width: int) -> Iterator[list[int]]:
        """The indices of the columns of each part."""
        widths, keys = self._widths(), list(range(self.keys))
        chosen = keys
        for group in self._groups():
            if chosen != keys and sum(widths[i] + self.gap for i in [*chosen, *group]) - self.gap > width:
                yield chosen
                chosen = keys
            chosen = [*chosen, *group]
        yield chosen

    def _groups(self) -> Iterator[list[int]]:
        """The indices of columns that stay together, behind the key columns."""
        group: list[int] = []
        for index in range(self.keys, len(self.heads)):
            head = self.heads[index]
            if group and (head == "|" if "|" in self.heads else head not in _OF_THE_COLUMN_BEFORE):
                yield group
                group = []
            group.append(index)
        yield group

    def _columns(self, chosen: Sequence[int]) -> "Table":
        """The table of some columns, without notes."""
        rows = [row if isinstance(row, str) else [row[i] for i in chosen if i < len(row)] for row in self.rows]
        left = [place for place, index in enumerate(chosen) if index in self.left]
        return replace(self, heads=[self.heads[i] for i in chosen], rows=rows, left=left, notes=())

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


def _flowing(notes: Sequence[str]) -> list[str]:
    """The notes, those that end in the middle of a sentence joined with the next one."""
    found: list[str] = []
    for note in notes:
        if found and found[-1].endswith((";", ",")):
            found[-1] += f" {note}"
        else:
            found.append(note)
    return found


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most this width, indented as the first."""
    return textwrap.wrap(text, width, subsequent_indent=" " * (len(text) - len(text.lstrip())))


def in_text(tables: Sequence[Table], width: int | None = None) -> str:
    """Tables below each other, with an empty line between them; in parts that are at most `width` wide."""
    parts = tables if width is None else [part for table in tables for part in table.parts(width)]
    return "\n\n".join(map(str, parts))
