"""Compilation of what is called outside of any `jit`."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax

from .compat import is_known

_P = ParamSpec("_P")
_R = TypeVar("_R")


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Compile a pure function of PyTrees once for all calls with equal static parts and arrays of the same shapes.

    JAX knows the body of a loop by identity: a loop outside of `jit` whose body is made afresh is compiled at each
    call. Within a `jit` the function is inlined, so that the program is the same as without. It is not where values
    are known, as under `jax.grad` alone: the derivative, too, is then compiled once.
    """
    options: dict[str, Any] = {"inline": True}
    inlined, outlined = eqx.filter_jit(function, **options), eqx.filter_jit(function)

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        known = all(is_known(leaf) for leaf in jax.tree.leaves((args, kwargs)))
        return (outlined if known else inlined)(*args, **kwargs)

    return call
