"""One representative of all functions that compute the same, so that compiled programs are reused."""

from collections import OrderedDict
from functools import partial
from types import FunctionType, MethodType
from typing import Any, TypeVar

import jax

from .fingerprint import Fingerprint, fingerprint
from .plain import PLAIN

_T = TypeVar("_T")
_FUNCTIONS = FunctionType | MethodType | partial
_MOST = 256
_first: "OrderedDict[str, Any]" = OrderedDict()


def canonical(tree: _T) -> _T:
    """The tree with each function replaced by the first one met that computes the same.

    JAX compiles once per function object, but `optax.adam(1e-2)`, or a lambda in a cell of a notebook, is a new object
    each time it runs. A function that cannot be described stays, e.g. one that closes over a tracer. The last 256
    functions are kept.
    """
    if PLAIN:
        return tree
    return jax.tree.map(lambda leaf: _canonical(leaf) if isinstance(leaf, _FUNCTIONS) else leaf, tree)


def forget() -> None:
    """Forget the functions met so far."""
    _first.clear()


def _canonical(function: Any) -> Any:
    found = _describe(function)
    if found is None:
        return function
    name = repr(found)
    first = _first.get(name)
    # The objects that the first one refers to may have changed since.
    if first is None or _describe(first) != found:
        _first[name] = first = function
    _first.move_to_end(name)
    while len(_first) > _MOST:
        _first.popitem(last=False)
    return first


def _describe(function: Any) -> Fingerprint | None:
    try:
        return fingerprint({"function": function})
    except ValueError:
        return None
