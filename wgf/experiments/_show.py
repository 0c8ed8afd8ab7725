"""`wgf show`: the table and the figure of a finished run, from what its folder holds."""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import tyro

from .._checks import expanded, shown
from .._standard_output import standard_output
from .._storage.files import written_whole
from ._config_file import load_config
from ._lines import Lines
from ._result import AbstractResult, printed
from ._results import load_named

_FORMATS = ("png", "pdf", "svg")


@dataclasses.dataclass(frozen=True)
class ShowConfig:
    """Print the table of a finished run, and draw its figure anew. No flow is computed."""

    results: tyro.conf.Positional[Path]
    """The results folder."""
    figure: Path | None = None
    """The file of the figure: .png, .pdf or .svg; by default that in the results folder."""
    json: bool = False
    """Print the tables as JSON."""


def show(config: ShowConfig) -> None:
    """Print the table of a finished run, and draw its figure.

    Both are made anew from `result.npz`. Where this release cannot read the result, the table and the figure that were
    saved are shown, and a line says why. With `json`, a figure is drawn only if it is asked for.

    **Raises:** `ValueError` if the folder holds no finished run, a result that cannot be read is to be shown in another
    form, or the figure cannot be written.
    """
    folder = expanded("results", config.results)
    if not os.path.isfile(folder / "result.npz"):
        raise ValueError(f"`results` must be the folder of a finished run; got {shown(str(folder))}.")
    figure = None if config.figure is None else expanded("figure", config.figure)
    if figure is not None and figure.suffix[1:] not in _FORMATS:
        raise ValueError(f"`figure` must end in one of {[f'.{each}' for each in _FORMATS]}; got {shown(str(figure))}.")
    try:
        name, result = load_named(folder)
        text = _as_json(name, result) if config.json else printed(result)
    except ValueError as error:
        if config.json or (figure is not None and figure.suffix != ".png"):
            raise
        _show_saved(folder, figure, str(error))
        return
    with standard_output():
        print(text)
    if figure is not None or not config.json:
        _draw(result, figure or folder / f"{name}.png", on_error_output=config.json)


def _draw(result: AbstractResult, file: Path, on_error_output: bool) -> None:
    """Draw the figure, and print the name of its file."""
    figure = result.figure()
    try:
        with written_whole(file) as opened:
            figure.savefig(opened, format=file.suffix[1:], dpi=130)
    except OSError as error:
        raise ValueError(f"`figure` must be a file that can be written; got {file} ({error}).") from error
    with standard_output():
        print(f"figure: {file}", file=sys.stderr if on_error_output else sys.stdout)


def _as_json(name: str, result: Any) -> str:
    """The tables of a result: title, heads, rows of cells, and notes."""
    tables = [
        {
            "title": table.title,
            "heads": [head.strip() for head in table.heads],
            "rows": [row if isinstance(row, str) else [cell.strip() for cell in row] for row in table.rows],
            "notes": list(table.notes),
        }
        for table in result.tables()
    ]
    return json.dumps({"experiment": name, "tables": tables}, indent=2, ensure_ascii=False)


def _show_saved(folder: Path, figure: Path | None, reason: str) -> None:
    """Show the files of a run whose result cannot be read."""
    if not all((folder / name).is_file() for name in ("config.json", "table.txt")):
        raise ValueError(reason)
    name, _ = load_config(folder)
    saved = folder / f"{name}.png"
    file, is_there = figure or saved, saved.is_file()
    if not is_there and figure is not None:
        raise ValueError(f"`figure` needs a result or {saved.name}; {folder} has no such file, and {reason}")
    if os.path.abspath(file) != os.path.abspath(saved):
        try:
            shutil.copyfile(saved, file)
        except OSError as error:
            raise ValueError(f"`figure` must be a file that can be written; got {file} ({error}).") from error
    Lines().tell(f"{reason} Table and figure are those that were saved.")
    with standard_output():
        print((folder / "table.txt").read_text(encoding="utf-8"), end="")
        print(f"figure: {file}" if is_there else f"figure: none; {folder} holds no {saved.name}")
