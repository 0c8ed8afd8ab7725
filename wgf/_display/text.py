"""Short texts of objects for `repr`, which must work on any leaf: known, traced, stacked, abstract, or no array."""

import abc
import math
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .._backend.precision import Module
from .._checks import on_host


class Brief(Module):
    """A module whose `repr` is one line of facts, and whose `summary` is several.

    `equinox.tree_pformat` prints its whole structure.
    """

    @abc.abstractmethod
    def _facts(self) -> Iterable[str]:
        """What the line says, in its order."""

    def _details(self) -> Iterable[str]:
        """What the summary says besides the facts."""
        return ()

    def summary(self) -> str:
        """The facts of the `repr`, one per line, and more. Solutions and gaps add a table of at most 12 times."""
        facts = [*self._facts(), *self._details()]
        return "\n  ".join([type(self).__name__, *facts])

    def __repr__(self) -> str:
        try:
            return f"{type(self).__name__}: {', '.join(self._facts())}"
        # An error here would hide the one that the text is printed for.
        except Exception:
            return eqx.tree_pformat(self)


def facts_of(value: Any) -> Iterable[str]:
    """The facts of a module within another one; the `kind` of what stands in its place."""
    return value._facts() if isinstance(value, Brief) else [kind(value)]


def known(value: Any, axes: int) -> np.ndarray | None:
    """The numbers of an array with this number of axes; None if it has others, or its numbers are not available."""
    if not isinstance(value, jax.Array | np.ndarray) or value.ndim != axes or value.size == 0:
        return None
    host = on_host(value)
    return host if isinstance(host, np.ndarray) else None


def kind(value: Any) -> str:
    """The type and shape of an array, as in `float32[3,8]`. Numbers and None are themselves, the rest is its type."""
    if is_array(value):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    return str(value) if value is None or isinstance(value, bool | int | float) else type(value).__name__


def number(value: Any, digits: int = 4) -> str:
    """A scalar, or its `kind` if its value is not available."""
    scalar = known(value, 0)
    return kind(value) if scalar is None else f"{scalar.item():.{digits}g}"


def counted(count: Any, noun: str) -> str:
    """A count with its noun, as in `1 step` and `2 steps`."""
    return f"{count} {noun}" if str(count) == "1" else f"{count} {noun}s"


def last(vector: Any) -> str:
    """The last number of a vector, or its `kind` if its numbers are not available."""
    found = known(vector, 1)
    return kind(vector) if found is None else f"{found[-1]:.3g}"


def sizes(value: Any) -> str:
    """The axes of an array, as in `4 × 16`."""
    return " × ".join(map(str, value.shape)) if getattr(value, "shape", ()) else kind(value)


def dimension(tree: PyTree, axes: int) -> int:
    """The number of entries per index of the first `axes` axes, over all arrays of a tree."""
    return sum(math.prod(leaf.shape[axes:]) for leaf in jax.tree.leaves(tree) if is_array(leaf))


def memory(tree: PyTree) -> str:
    """The types of a tree's arrays and their size, as in `float32, 1.5 kB`."""
    arrays = [leaf for leaf in jax.tree.leaves(tree) if is_array(leaf)]
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in arrays)
    types = sorted({str(leaf.dtype) for leaf in arrays if jax.numpy.issubdtype(leaf.dtype, np.inexact)})
    return ", ".join([*types, in_bytes(size)])


def in_bytes(size: int) -> str:
    """A number of bytes with its unit."""
    amount, units = float(size), ["GB", "MB", "kB", "B"]
    # 999.5 would round to 1e+03.
    while amount >= 999.5 and len(units) > 1:
        amount, _ = amount / 1000, units.pop()
    return f"{amount:.3g} {units[-1]}"


def is_array(value: Any) -> bool:
    """Whether an object is an array: of JAX or NumPy, traced, or a shape and a type alone."""
    return hasattr(value, "dtype") and isinstance(getattr(value, "shape", None), tuple)
