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

    @abc.abstractmethod
    def _columns(self) -> Mapping[str, Column]:
        """The columns by their headings. All have one length."""

    def _repr_html_(self) -> str:
        try:
            table = _table(self._columns(), self._note)
        # As for `repr`: a display that fails says less than the text.
        except Exception:
            table = None
        title = escape(repr(self))
        return f"<pre>{title}</pre>" if table is None else f"<p>{title}</p>{table}"


def _table(columns: Mapping[str, Column], note: str) -> str | None:
    """An HTML table of at most 12 rows, evenly spread; the last is kept. None if a number is not known."""
    parts = [part for column in columns.values() for part in column if part is not None]
    if any(known(part, 1) is None for part in parts):
        return None
    cells = [_cells(*map(np.asarray, column)) for column in columns.values()]
    head = "".join(f"<th>{escape(heading)}</th>" for heading in columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{column[row]}</td>' for column in cells)}</tr>"
        for row in evenly_spread(len(cells[0]), _MOST_ROWS)
    )
    foot = f"<p>{escape(note)}</p>" if any(column.errors is not None for column in columns.values()) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{foot}"


def _cells(values: np.ndarray, errors: np.ndarray, resolved: np.ndarray) -> list[str]:
    """The texts of a column. Errors, and whether values are above them, are arrays without axes if there are none."""
    texts = [f"{value:.4g}" for value in values]
    if errors.ndim:
        texts = [f"{text} ± {error:.2g}" for text, error in zip(texts, errors, strict=True)]
    if resolved.ndim:
        texts = [f"<b>{text}</b>" if above else text for text, above in zip(texts, resolved, strict=True)]
    return texts
