"""The folder of a run: one process at a time, its solution, and words for a disk that fails."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import jax

from ..._checks import shown
from ..._storage.lock import locked
from ..._storage.storage import write
from .._solution import AbstractSolution

SOLUTION = "solution.npz"


def folder_at(directory: str | os.PathLike) -> Path:
    """The absolute path of a folder, or of a new one; raise `ValueError` if it cannot be one."""
    if not isinstance(directory, str | os.PathLike) or "\0" in str(directory):
        raise ValueError(f"`directory` must be the path of a folder; got {shown(directory)}.")
    try:
        folder = Path(directory).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(
            f"`directory` begins with ~ and must then name a user; got {directory}, and there is no such user."
        ) from error
    if os.path.exists(folder) and not folder.is_dir():
        raise ValueError(f"`directory` must be a folder or a new path; {folder} is a file.")
    return folder


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes out. Of a cluster, the first process does so for all."""
    with contextlib.ExitStack() as held:
        if jax.process_index() == 0:
            try:
                held.enter_context(locked(folder))
            except ValueError as error:
                raise ValueError(f"`directory` must be a folder that no other process uses; {error}") from None
            # A process that was killed may have left parts of files.
            for part in (*folder.glob(".*.part"), *folder.glob("saves/.*.part")):
                part.unlink(missing_ok=True)
            if (folder / SOLUTION).is_dir():
                raise ValueError(f"`directory` must hold no folder of the name {SOLUTION}; {folder} does. Remove it.")
        yield


@contextlib.contextmanager
def still_written(path: Path) -> Iterator[None]:
    """Say which file of a run cannot be written, and that the run can resume."""
    try:
        yield
    # Orbax raises many types of errors for a full disk.
    except Exception as error:
        raise OSError(
            getattr(error, "errno", None) or errno.EIO,
            f"`directory` must stay a folder that can be written; {path} could not be written ({error}). The files "
            "written before are kept. Once writing is possible, the same call resumes.",
        ) from error


def keep(folder: Path, solution: AbstractSolution) -> None:
    """Write the solution of a run, for [`wgf.load`][].

    **Raises:** `OSError` if it cannot be written.
    """
    path = folder / SOLUTION
    with still_written(path):
        write(path, solution)
