"""Tables of numbers along τ, as notebooks show them."""

from collections.abc import Mapping
from html import escape
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ._spread import evenly_spread
from ._text import Brief, known

_MOST_ROWS = 12


class Column(NamedTuple):
    """Values along τ, with their errors and whether they are above them, where these are known."""

    values: Any
    errors: Any = None
    resolved: Any = None


class Tabled(Brief):
    """A module that notebooks show as a table; as its `repr` if its numbers are not available."""

    _note: ClassVar[str] = ""

    def _columns(self) -> Mapping[str, Column]:
        """The columns by their headings. All have one length."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        try:
            return _table(repr(self), self._columns(), self._note)
        # As for `repr`: a display that fails says less than the text.
        except Exception:
            return f"<pre>{escape(repr(self))}</pre>"


def _table(title: str, columns: Mapping[str, Column], note: str) -> str:
    """An HTML table of at most 12 rows, evenly spread; the last is kept."""
    cells = [_cells(column) for column in columns.values()]
    head = "".join(f"<th>{escape(heading)}</th>" for heading in columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{column[row]}</td>' for column in cells)}</tr>"
        for row in evenly_spread(len(cells[0]), _MOST_ROWS)
    )
    foot = f"<p>{escape(note)}</p>" if any(column.errors is not None for column in columns.values()) else ""
    return f"<p>{escape(title)}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{foot}"


def _cells(column: Column) -> list[str]:
    values, errors, resolved = (None if part is None else _vector(part) for part in column)
    assert values is not None
    texts = [f"{value:.4g}" for value in values]
    if errors is not None:
        texts = [f"{text} ± {error:.2g}" for text, error in zip(texts, errors, strict=True)]
    if resolved is not None:
        texts = [f"<b>{text}</b>" if above else text for text, above in zip(texts, resolved, strict=True)]
    return texts


def _vector(part: Any) -> np.ndarray:
    found = known(part, 1)
    if found is None:
        raise ValueError("A table needs vectors of known numbers.")
    return found
