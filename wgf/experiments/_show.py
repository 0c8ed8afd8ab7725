"""`wgf show`: the table and the figure of a finished run, from what its folder holds."""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import tyro

from .._checks import shown
from .._standard_output import standard_output
from .._storage.files import written_whole
from . import EXPERIMENTS
from ._config_file import expanded, load_config
from ._lines import Lines
from ._results import load

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
    saved are shown, and a line says why.

    **Raises:** `ValueError` if the folder holds no finished run, a result that cannot be read is to be shown in another
    form, or the figure cannot be written.
    """
    folder = expanded("results", config.results)
    if not all((folder / name).is_file() for name in ("config.json", "result.npz", "table.txt")):
        raise ValueError(f"`results` must be the folder of a finished run; got {shown(str(folder))}.")
    name, _ = load_config(folder)
    if name not in EXPERIMENTS:
        raise ValueError(f"`results` must be of one of {sorted(EXPERIMENTS)}; got {shown(name)}.")
    file = folder / f"{name}.png" if config.figure is None else expanded("figure", config.figure)
    if file.suffix[1:] not in _FORMATS:
        raise ValueError(f"`figure` must end in one of {[f'.{each}' for each in _FORMATS]}; got {shown(str(file))}.")
    try:
        result = load(folder)
    except ValueError as error:
        if config.json or file.suffix != ".png":
            raise
        _show_saved(folder, name, file, config, str(error))
    else:
        _show_anew(name, result, file, config.json)


def _show_anew(name: str, result: Any, file: Path, as_json: bool) -> None:
    figure = result.figure()
    try:
        with written_whole(file) as opened:
            figure.savefig(opened, format=file.suffix[1:], dpi=130)
    except OSError as error:
        raise ValueError(f"`figure` must be a file that can be written; got {file} ({error}).") from error
    with standard_output():
        print(_as_json(name, result) if as_json else result.table())
        print(f"figure: {file}", file=sys.stderr if as_json else sys.stdout)


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


def _show_saved(folder: Path, name: str, file: Path, config: ShowConfig, reason: str) -> None:
    """Show the files of a run whose result cannot be read."""
    saved = folder / f"{name}.png"
    is_there = saved.is_file()
    if not is_there and config.figure is not None:
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
