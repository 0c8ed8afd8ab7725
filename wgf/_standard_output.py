"""Standard output under difficulties: a terminal with few characters, a pipe that closes early, a full disk."""

import contextlib
import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

_BROKEN_PIPE = 141
"""The exit code that a shell reports for a program ended by the signal SIGPIPE: 128 + 13."""


@contextlib.contextmanager
def standard_output(if_lost: str = "") -> Iterator[None]:
    """Print inside this context, so that no failed output ends the program with a traceback.

    Characters that the terminal lacks are escaped. A closed pipe (`wgf ... | head -1`) ends the program silently. Any
    other failure to write (a full disk) ends it with one line on standard error.

    **Arguments:** `if_lost`: a sentence for that line, e.g. where the results are.

    **Raises:** `SystemExit` if standard output cannot be written: with code 141 for a closed pipe, else 1.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            # Flushed here, because errors at the exit of Python cannot be caught. With `>&-` the stream is None.
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        raise SystemExit(_BROKEN_PIPE) from None
    except OSError as error:
        _drop_output()
        raise SystemExit(f"wgf: standard output cannot be written: {error.strerror}. {if_lost}".rstrip()) from error


@contextlib.contextmanager
def wrapped_output() -> Iterator[None]:
    """Print inside this context, so that no line is wider than the terminal, or 80 columns without one.

    For the help: tyro wraps all of it except the usage and the description.
    """
    terminal = sys.stdout
    held = _Held(terminal)
    try:
        with contextlib.redirect_stdout(held):
            yield
    finally:
        columns = max(_LEAST_COLUMNS, shutil.get_terminal_size().columns)
        for line in held.getvalue().splitlines():
            print(_in_columns(line, columns), file=terminal)


_LEAST_COLUMNS = 40
"""What tyro's help takes on the narrowest terminal."""


class _Held(io.StringIO):
    """Output that is held back, with the colours and the characters of the stream that it is for."""

    def __init__(self, stream: Any):
        super().__init__()
        self._stream = stream

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return getattr(self._stream, "encoding", None) or "utf-8"


def _in_columns(line: str, columns: int) -> str:
    """A line that fits, as it is; a wider one wrapped and without colours."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", line)
    if len(plain) <= columns:
        return line
    in_usage = plain.startswith("usage:")
    # The names of the commands stand between commas without blanks, where no line could be broken.
    plain = plain.replace(",", ", ") if in_usage else plain
    indent = " " * 4 if in_usage else ""
    return textwrap.fill(plain, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _drop_output() -> None:
    """Redirect the buffer to the null device, because Python writes it again at its exit."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
