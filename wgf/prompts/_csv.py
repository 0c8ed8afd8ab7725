"""Tables of numbers from CSV files."""

import codecs
import csv
import gzip
import io
import os
import reprlib
import zlib
from pathlib import Path

import numpy as np

from .._checks import shown

# Byte order marks. Those of UTF-32 come first, because one of them begins with a mark of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_GZIP = b"\x1f\x8b"
_SHORT = reprlib.Repr()
_SHORT.maxlist, _SHORT.maxstring = 50, 60


def read_csv(path: str | Path, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a CSV file with a header line into `(features [rows, columns], target [rows])`.

    **Arguments:**

    - `path`: the file, with commas between the cells and a number in every cell below the header. It is in UTF-8, or in
      UTF-16 or UTF-32 with a byte order mark, and may be compressed by gzip.
    - `target`: the name of the column to predict. All other columns are features.

    **Raises:** `ValueError` naming the file and, if possible, the line and the column. It is raised if the file cannot
    be read, is not such a text or is empty; if no column or several columns have the target's name; if a row and the
    header differ in length; or if a cell is not a finite number.

    Not for `jit`: it reads a file.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"`path` must be the path of a file; got {shown(path)}.")
    if not isinstance(target, str):
        raise ValueError(f"`target` must be the name of a column; got {shown(target)}.")
    numbered = _rows(path, _text(path))
    if not numbered:
        raise ValueError(f"`path` must hold a header line and rows of numbers; got {path}, which is empty.")
    (first, header), *rows = numbered
    for number, name in enumerate(header, start=1):
        if (readable := _readable(name)) != name:
            raise ValueError(
                f"`path`: {path}, line {first}, column {number} must be in UTF-8; got "
                f"{_SHORT.repr(readable)}. Save the file in UTF-8."
            )
    if target not in header:
        raise ValueError(
            f"`target` must be a column of {path}, one of {_SHORT.repr(header)}; got {_SHORT.repr(target)}."
        )
    if header.count(target) > 1:
        places = [number for number, name in enumerate(header, start=1) if name == target]
        raise ValueError(
            f"`target` must be one column of {path}; got {_SHORT.repr(target)} as columns {_SHORT.repr(places)}. "
            "Rename or remove all but one."
        )
    if len(header) < 2 or not rows:
        raise ValueError(f"`path` must hold a feature column and a row of data besides the target; got {path}.")
    table = np.array([_numbers(path, row, header, line) for line, row in rows])
    column = header.index(target)
    return np.delete(table, column, axis=1), table[:, column]


def _text(path: str | Path) -> str:
    """The text of a file. Bytes that are not UTF-8 become lone surrogates, so that errors can name their cells."""
    try:
        data = Path(path).read_bytes()
        data = gzip.decompress(data) if data.startswith(_GZIP) else data
    except gzip.BadGzipFile as error:
        raise _cut_off(path, error) from error
    except OSError as error:
        raise ValueError(f"`path` must be a file that can be read; got {path}: {error.strerror}.") from error
    except ValueError as error:  # a path with a zero byte
        raise ValueError(f"`path` must be a file that can be read; got {shown(path)}: {error}.") from error
    except (EOFError, zlib.error) as error:
        raise _cut_off(path, error) from error
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    try:
        text = data.decode(encoding) if encoding else data.decode("utf-8-sig", "surrogateescape")
    except UnicodeDecodeError as error:
        raise ValueError(f"`path` must be in {encoding}, as its byte order mark says; got {path}: {error}.") from error
    if "\0" in text:
        raise ValueError(
            f"`path` must be a text file; got {path}, which holds zero bytes: it is binary, or in UTF-16 without a "
            "byte order mark. Save it as CSV in UTF-8."
        )
    return text


def _cut_off(path: str | Path, error: Exception) -> ValueError:
    return ValueError(f"`path` must be a complete gzip file; got {path}: {error}.")


def _rows(path: str | Path, text: str) -> list[tuple[int, list[str]]]:
    """The number and the cells of each line that is not empty, without blanks around the cells."""
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(lines)
    try:
        return [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except csv.Error as error:
        # A cell is longer than the csv module allows.
        most, line = csv.field_size_limit(), reader.line_num
        cells = [len(cell) for cell in lines[line - 1].rstrip("\r\n").split(",")]
        if max(cells) <= most:
            raise ValueError(
                f"`path`: {path}, line {line}: a quote must be closed within {most} characters; got an earlier "
                "one that is still open."
            ) from error
        column = cells.index(max(cells))
        names = next(csv.reader(lines[:1])) if line > 1 else []
        name = repr(names[column].strip()) if column < len(names) else column + 1
        raise ValueError(
            f"`path`: {path}, line {line}, column {name} must hold at most {most} characters; got {max(cells)}."
        ) from error


def _numbers(path: str | Path, row: list[str], header: list[str], line: int) -> list[float]:
    if len(row) != len(header):
        raise ValueError(f"`path`: {path}, line {line} must have {len(header)} cells, as the header; got {len(row)}.")
    numbers = [_number(cell) for cell in row]
    if not np.isfinite(numbers).all():
        column = int(np.argmin(np.isfinite(numbers)))
        raise ValueError(
            f"`path`: {path}, line {line}, column {_SHORT.repr(header[column])} must be a finite number; got "
            f"{_SHORT.repr(_readable(row[column]))}."
        )
    return numbers


def _number(cell: str) -> float:
    """The number in a cell, or NaN if the cell is not a number."""
    try:
        return float(cell)
    except ValueError:
        return np.nan


def _readable(cell: str) -> str:
    r"""The cell, with each byte that is not UTF-8 as `\xe9` or the like."""
    return cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
