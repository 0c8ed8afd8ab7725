"""What a study's `run` returns."""

import abc
import html
import shutil
import sys
from typing import Any, Protocol, runtime_checkable

from matplotlib.figure import Figure

from ._table import Table, in_text


class AbstractResult(abc.ABC):
    """What an experiment's `run` returns: a dataclass whose field `config` holds the options.

    Notebooks show its tables.
    """

    config: Any

    @abc.abstractmethod
    def tables(self) -> tuple[Table, ...]:
        """The tables, cell by cell."""

    @abc.abstractmethod
    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`."""

    @abc.abstractmethod
    def figure(self) -> Figure:
        """The figure of the run."""

    def table(self) -> str:
        """The tables as the command prints them."""
        return in_text(self.tables())

    def __repr__(self) -> str:
        return f"{type(self).__name__} with table(), figure() and arrays()"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.table())}</pre>"


def printed(result: AbstractResult) -> str:
    """The tables as they are printed: on a terminal in parts that fit its width."""
    if sys.stdout is None or not sys.stdout.isatty():
        return result.table()
    return in_text(result.tables(), shutil.get_terminal_size().columns)


@runtime_checkable
class WithModels(Protocol):
    """A result that holds models. They are large, and neither its tables nor its figure need them."""

    def without_models(self) -> Any:
        """The result without its models."""
        ...
