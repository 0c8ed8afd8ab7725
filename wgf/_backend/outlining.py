"""Outlining: a part of a program that XLA compiles by itself, once."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import equinox as eqx

from .plain import PLAIN

if TYPE_CHECKING or not PLAIN:
    from .compat import set_xla_metadata

_P = ParamSpec("_P")
_R = TypeVar("_R")


def outline(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a pure function of PyTrees a compiled call that XLA does not inline.

    The mark has an effect on XLA:CPU alone. It serves two ends:

    - *Compile time.* An adaptive Runge–Kutta solve calls its vector field in four places (two for the size of the first
      step, one for the first stage, one in the loop). Inlined, each is optimised and compiled anew; outlined, they
      share one computation, which halves the compile time of a flow.
    - *Run time.* XLA fuses a cheap producer into each of its consumers and computes it again for each of their
      elements, which costs the attention kernel a factor of ten. `jax.lax.optimization_barrier` does not help: XLA's
      CPU compiler drops it before it fuses.
    """
    if PLAIN:
        return function

    def unmarked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        # The mark is for the outer call alone: on the small calls within it would keep XLA from fusing them.
        with set_xla_metadata(inlineable="true"):
            return function(*args, **kwargs)

    compiled = eqx.filter_jit(functools.wraps(function)(unmarked))

    @functools.wraps(function)
    def outlined(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with set_xla_metadata(inlineable="false"):
            return compiled(*args, **kwargs)

    return outlined
