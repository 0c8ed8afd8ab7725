"""Tables of numbers along τ, as notebooks show them."""

import abc
from collections.abc import Mapping
from html import escape
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .spread import evenly_spread
from .text import Brief, known

_MOST_ROWS = 12


class Column(NamedTuple):
    """Values along τ, with their errors and whether they are above them, where these are known."""

    values: Any
    errors: Any = None
    resolved: Any = None


class Tabled(Brief):
    """A module that notebooks show as a table; as its `repr` if its numbers are not available."""

    _note: ClassVar[str] = ""
    """What errors and marked values are. `{marked}` stands for the form of the mark."""

    @abc.abstractmethod
    def _columns(self) -> Mapping[str, Column]:
        """The columns by their headings. All have one length."""

    def summary(self) -> str:
        """The facts of the `repr`, one per line, and more; a table of at most 12 times, if the numbers are known."""
        table = _in_text(self._columns(), self._note)
        return super().summary() + ("" if table is None else f"\n\n{table}")

    def _repr_html_(self) -> str:
        try:
            table = _in_html(self._columns(), self._note)
        # As for `repr`: a display that fails says less than the text.
        except Exception:
            table = None
        title = escape(repr(self))
        return f"<pre>{title}</pre>" if table is None else f"<p>{title}</p>{table}"


def _in_html(columns: Mapping[str, Column], note: str) -> str | None:
    """An HTML table; None if a number is not known."""
    rows = _rows(columns, "<b>{}</b>")
    if rows is None:
        return None
    head = "".join(f"<th>{escape(heading)}</th>" for heading in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    foot = f"<p>{escape(note.format(marked='Bold'))}</p>" if _have_errors(columns) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{foot}"


def _in_text(columns: Mapping[str, Column], note: str) -> str | None:
    """A table in columns of text; None if a number is not known."""
    rows = _rows(columns, "{} *")
    if rows is None:
        return None
    lines = [list(columns), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*table, note.format(marked="*")] if _have_errors(columns) else table)


def _rows(columns: Mapping[str, Column], mark: str) -> list[list[str]] | None:
    """The cells of at most 12 rows, evenly spread; the last is kept. None if a number is not known."""
    parts = [part for column in columns.values() for part in column if part is not None]
    if any(known(part, 1) is None for part in parts):
        return None
    cells = [_cells(mark, *map(np.asarray, column)) for column in columns.values()]
    return [[column[row] for column in cells] for row in evenly_spread(len(cells[0]), _MOST_ROWS)]


def _have_errors(columns: Mapping[str, Column]) -> bool:
    return any(column.errors is not None for column in columns.values())


def _cells(mark: str, values: np.ndarray, errors: np.ndarray, resolved: np.ndarray) -> list[str]:
    """The texts of a column. Errors, and whether values are above them, are arrays without axes if there are none."""
    texts = [f"{value:.4g}" for value in values]
    if errors.ndim:
        texts = [f"{text} ± {error:.2g}" for text, error in zip(texts, errors, strict=True)]
    if resolved.ndim:
        texts = [mark.format(text) if above else text for text, above in zip(texts, resolved, strict=True)]
    return texts
