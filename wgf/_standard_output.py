"""Standard output under difficulties: a terminal with few characters, a pipe that closes early, a full disk."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator

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


def _drop_output() -> None:
    """Redirect the buffer to the null device, because Python writes it again at its exit."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
