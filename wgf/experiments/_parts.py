"""The finished parts of a run on disk, so that a run that was killed resumes."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from .._backend.plain import PLAIN
from .._backend.precision import default_precision
from .._checks import expanded
from .._storage.tree import read_header, read_tree, write_tree
from ._about import about
from ._config_file import portable
from ._lines import Lines, lines_of_the_command

_Part = TypeVar("_Part")
_FORMAT = 1
_NOT_COMPARED = ("out", "distributed")


class Parts:
    """The finished parts of one run, in the folder `parts` of its results: one file per part.

    A file also holds what its numbers depend on: options, sources, releases, device and precision. It is read instead
    of computed where all of these are the same.

    **Arguments:**

    - `folder`: the results folder.
    - `config`: the config dataclass of the run.
    - `resume`: False to compute all parts anew.
    """

    def __init__(self, folder: Path, config: Any, *, resume: bool = True):
        self.folder = folder / "parts"
        self._origin, self._resume = origin_of(config), resume
        self._lock = threading.Lock()
        self._lines = lines_of_the_command() or Lines()
        self._told: set[str] = set()
        self._lasting: set[Path] = set()

    def part(self, name: str, compute: Callable[[], _Part], *, is_temporary: bool = False) -> _Part:
        """The part of this name: read if it is there, else computed and written.

        **Arguments:** `is_temporary`: whether `clean` removes the part. Only later parts need it.
        """
        path = self.folder / f"{_file_name(name)}.npz"
        if not is_temporary:
            with self._lock:
                self._lasting.add(path)
        if self._is_usable(path):
            try:
                return read_tree(path)
            except ValueError as error:
                self._tell(f"{error} It is computed anew.")
        began = time.perf_counter()
        found = compute()
        self._write(path, found, {"name": name, "seconds": round(time.perf_counter() - began, 1)})
        return found

    def clean(self) -> None:
        """Remove the temporary parts, and those of other runs. Call it when the results are saved."""
        # A process that was killed while it wrote leaves a hidden file.
        for path in [*self.folder.glob("*.npz"), *self.folder.glob(".*.part")]:
            if path not in self._lasting:
                path.unlink(missing_ok=True)

    def _is_usable(self, path: Path) -> bool:
        if not self._resume or not path.exists():
            return False
        try:
            header = read_header(path)
        except ValueError as error:
            self._tell(f"{error} It is computed anew.")
            return False
        if differing := [name for name, value in self._origin.items() if header.get(name) != value]:
            self._tell(f"parts in {self.folder} have other {' and '.join(differing)}. They are computed anew.")
        return not differing

    def _write(self, path: Path, part: Any, facts: Mapping[str, Any]) -> None:
        """Write a part. A run does not end because one cannot be written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tree(path, part, {**self._origin, **facts})
        except (OSError, TypeError) as error:
            self._tell(f"{path} cannot be written ({error}). The run goes on, and would not resume from there.")

    def _tell(self, text: str) -> None:
        """Say something once on standard error and in the log file."""
        with self._lock:
            if text not in self._told:
                self._told.add(text)
                self._lines.tell(text)


def origin_of(config: Any) -> dict[str, Any]:
    """What the numbers of a run depend on, as plain values."""
    facts = about(config)
    names = ("sources", "versions", "device", "devices")
    precision = [facts["precision"], default_precision(), PLAIN]
    data = [facts["data"], _files_in(getattr(config, "root", None))]
    own = {"format": _FORMAT, "options": options_of(config), "precision": precision, "data": data}
    return own | {name: facts[name] for name in names}


def _files_in(folder: Path | None) -> list[list[Any]] | None:
    """Names, sizes and times of the files in a folder of data."""
    if folder is None or not (place := expanded("root", folder)).is_dir():
        return None
    found = sorted(path for path in place.iterdir() if path.is_file())
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in found]


def options_of(config: Any) -> dict[str, Any]:
    """The options of a run that its numbers depend on, as they are read from JSON."""
    fields = {name: value for name, value in portable(config).items() if name not in _NOT_COMPARED}
    return json.loads(json.dumps(fields, default=str))


def _file_name(name: str) -> str:
    """A file name for a part: its words, and a digest that differs where the words do not."""
    words = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:60]
    return f"{words}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
