"""The results folder of a run."""

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from matplotlib.figure import Figure

from ._config_file import expanded, save_config


@runtime_checkable
class Result(Protocol):
    """The return type of every experiment's `run`."""

    @property
    def config(self) -> Any:
        """The config dataclass of the run. Its `out` is the results folder."""

    def table(self) -> str:
        """The table that the command prints."""
        ...

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`."""
        ...

    def figure(self) -> Figure:
        """The figure of the run."""
        ...


def save(experiment: str, result: Result) -> Path:
    """Write the results folder and return it: `EXPERIMENT.png`, `result.npz`, `config.json` and `table.txt`.

    **Raises:** `ValueError` if the folder cannot be made or written.
    """
    folder = results_folder(result.config.out, experiment)
    save_config(folder, experiment, result.config)
    save_arrays(folder, result.arrays())
    # The table may quote a file name whose bytes are not valid text.
    (folder / "table.txt").write_text(result.table() + "\n", encoding="utf-8", errors="backslashreplace")
    result.figure().savefig(folder / f"{experiment}.png", dpi=130)
    return folder


def results_folder(out: Path | None, experiment: str) -> Path:
    """Make the named folder, or a new one under `results/`, and check that the files of a run can be written there.

    **Raises:** `ValueError` if they cannot.
    """
    named = None if out is None else expanded("out", out)
    try:
        folder = _new_folder(experiment) if named is None else named
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".wgf-") as file:
            file.write(b"can be written")
        for name in (f"{experiment}.png", "result.npz", "config.json", "table.txt"):
            if (folder / name).exists():
                open(folder / name, "r+b").close()
    except OSError as error:
        raise ValueError(
            f"`out` must be a folder that can be made and written; got {named or 'results'} ({error})."
        ) from error
    return folder


def _new_folder(experiment: str) -> Path:
    """Make a new folder whose name is the experiment and the time."""
    stem = Path("results") / f"{experiment}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, count = stem, 0
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            count += 1
            folder = stem.with_name(f"{stem.name}-{count}")


@contextlib.contextmanager
def reserved(out: Path | None, experiment: str) -> Iterator[Path]:
    """Make the results folder before the run. If the run fails, remove the new folders that are still empty.

    **Raises:** `ValueError` if the folder cannot be made or written.
    """
    parent = Path("results") if out is None else expanded("out", out)
    existing = {path for path in (parent, *parent.parents) if path.exists()}
    folder = results_folder(out, experiment)
    try:
        yield folder
    except BaseException:
        for path in itertools.takewhile(lambda path: path not in existing, (folder, *folder.parents)):
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def save_arrays(folder: Path, arrays: dict[str, Any]) -> None:
    """Write `result.npz` with named arrays."""
    np.savez(folder / "result.npz", allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
