"""A folder that one process uses at a time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

_NAME = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside this context, no other process, and no other context of this one, can lock the same folder.

    The folder holds a file `.lock` with the number of the process. The operating system keeps the lock, not the file:
    a process that ends loses it, however it ends. Without `fcntl` (Windows), and on file systems without locks, the
    folder is not locked.

    **Arguments:** `folder`: a folder that exists and can be written.

    **Raises:** `ValueError` if the folder is locked; `OSError` if the file cannot be written.
    """
    if fcntl is None:
        yield
        return
    path = folder / _NAME
    with _opened(path, folder) as file:
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        try:
            yield
        finally:
            # Removed while it is locked: later, the name may belong to the file of the next process.
            path.unlink(missing_ok=True)


def _opened(path: Path, folder: Path) -> IO[bytes]:
    """The file, open and locked.

    The process before may remove its file between `open` and `flock`. Then the lock is that of a file without a name,
    and the next process would make a new one. So the name is looked up again.
    """
    while True:
        file = path.open("a+b")
        try:
            _lock(file, folder)
            if _is_at(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: IO[bytes], folder: Path) -> None:
    assert fcntl is not None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        number = file.read(20).decode("ascii", errors="replace")
        owner = f"process {number}" if number.isdigit() else "another process"
        raise ValueError(f"{folder} is in use by {owner}. Wait until it has ended, or name another folder.") from None
    except OSError:
        pass  # a file system without locks


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether the open file is the one that the path names."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
