"""Compilation of functions that are called outside of `jit`."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax

from .compat import is_known
from .precision import one_program, sets_precision

_P = ParamSpec("_P")
_R = TypeVar("_R")


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Compile a pure function of PyTrees once for all calls with equal static parts and arrays of the same shapes.

    JAX identifies the body of a loop by identity, so a loop outside of `jit` with a new body is compiled at each call.
    Within `jit` the function is inlined, and the program is the same as without. If values are known, as under
    `jax.grad` alone, it is not inlined, so that the derivative is compiled once, too. A method of a module that is
    called within another compiled function is the plain method.
    """
    options: dict[str, Any] = {"inline": True}
    inlined, outlined = eqx.filter_jit(function, **options), eqx.filter_jit(function)

    @sets_precision
    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        known = all(is_known(leaf) for leaf in jax.tree.leaves((args, kwargs)))
        with one_program():
            return (outlined if known else inlined)(*args, **kwargs)

    return call
