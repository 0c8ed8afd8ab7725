"""Lines about a running command: on standard error, and with their time in a log file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from io import TextIOBase
from pathlib import Path

from .._bars import bar_class
from .._checks import expanded
from ._failures import first_line


class Lines:
    """Where the lines about a command go. Threads can share it: each line is written in one call.

    **Arguments:** `log`: the open log file, if there is one.
    """

    def __init__(self, log: TextIOBase | None = None):
        self._log = log

    def note(self, text: str) -> None:
        """Write a line to the log file. A run does not end because that fails."""
        if self._log is None:
            return
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        try:
            self._log.write(f"{now} {' '.join(text.split())}\n")
        except OSError as error:
            self._log = None
            self.tell(f"the log file cannot be written ({error}). The run goes on without it.")

    def tell(self, text: str) -> None:
        """Write a line on standard error, beside a progress bar, and to the log file."""
        bar_class().write(f"wgf: {text}", file=sys.stderr)
        self.note(text)


_OF_THE_COMMAND: ContextVar[Lines | None] = ContextVar("_OF_THE_COMMAND", default=None)


def lines_of_the_command() -> Lines | None:
    """Where the lines about the command go that runs in this context; None in a program of one's own."""
    return _OF_THE_COMMAND.get()


@contextmanager
def told_in_lines(log: Path | None) -> Iterator[Lines]:
    """A context in which a command runs that tells of its progress in lines.

    **Arguments:** `log`: the log file, if there is one. Lines are appended to what it holds.

    **Raises:** `ValueError` if the log file cannot be written.
    """
    file = None if log is None else _opened(expanded("log", log))
    lines = Lines(file)
    before = _OF_THE_COMMAND.set(lines)
    try:
        yield lines
    except BaseException as error:
        lines.note(f"ended by {type(error).__name__}: {first_line(error) if isinstance(error, Exception) else error}")
        raise
    finally:
        _OF_THE_COMMAND.reset(before)
        if file is not None:
            file.close()


def _opened(path: Path) -> TextIOBase:
    """A text file that is written line by line, at its end."""
    try:
        # A file name in a line may hold bytes that are not valid text.
        return path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    except OSError as error:
        raise ValueError(f"`log` must be a file that can be written; got {path} ({error}).") from error
