"""Standard output as users have it: a terminal of few characters, a pipe that closes early, a full disk."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator

_BROKEN_PIPE = 141
"""The exit code that a shell reports for a program that the signal SIGPIPE ended: 128 + 13."""


@contextlib.contextmanager
def standard_output(if_lost: str = "") -> Iterator[None]:
    """Print inside this context, so that no output ends the program with a traceback.

    Characters that the terminal lacks are escaped. A closed pipe (`wgf ... | head -1`) ends the program quietly, any
    other failure to write (a full disk) with one line on standard error.

    **Arguments:** `if_lost`: a sentence for that line, e.g. where the results are.

    **Raises:** `SystemExit` if standard output cannot be written: with code 141 for a closed pipe, else 1.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            # Here, and not when Python ends, where errors are beyond catching. There is no stream in `>&-`.
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        raise SystemExit(_BROKEN_PIPE) from None
    except OSError as error:
        _drop_output()
        raise SystemExit(f"wgf: standard output cannot be written: {error.strerror}. {if_lost}".rstrip()) from error


def _drop_output() -> None:
    """Lead what is still in the buffer to nowhere: Python writes it once more at its end."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
