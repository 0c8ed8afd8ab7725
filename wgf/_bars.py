"""Progress bars: on a terminal a line of text, in a notebook a widget, and by default only where someone watches."""

import importlib
import sys
import warnings
from typing import Any


def bar(show: bool | None, **options: Any) -> Any:
    """A bar of tqdm: a widget in a notebook that has `ipywidgets`, else a line of text on standard error.

    **Arguments:** `show`: None for a bar if someone watches; `options`: those of tqdm.
    """
    return bar_class()(disable=not (is_watched() if show is None else show), **options)


def bar_class() -> Any:
    """The class of bars that suits this process.

    It is imported when a bar is made: in a notebook it imports `ipywidgets`.
    """
    if "tqdm.auto" not in sys.modules:
        with warnings.catch_warnings():
            # In a notebook without `ipywidgets` tqdm warns, and draws text.
            warnings.filterwarnings("ignore", message="IProgress not found")
            importlib.import_module("tqdm.auto")
    return sys.modules["tqdm.auto"].tqdm


def is_watched() -> bool:
    """Whether someone sees a bar: standard error is a terminal, or the process is the kernel of a notebook."""
    # With `2>&-` the stream is None, and a stream of a program's own may lack `isatty`.
    is_terminal = getattr(sys.stderr, "isatty", None)
    return (is_terminal is not None and is_terminal()) or _is_kernel()


def _is_kernel() -> bool:
    """Whether the code runs in a kernel of Jupyter. The IPython of a terminal has no kernel."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and getattr(get_ipython(), "kernel", None) is not None
