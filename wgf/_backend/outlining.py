"""Outlining: a part of a program that XLA compiles by itself, once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import equinox as eqx

from .plain import PLAIN
from .precision import one_program

if TYPE_CHECKING or not PLAIN:
    from .compat import set_xla_metadata

_P = ParamSpec("_P")
_R = TypeVar("_R")


def outline(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a pure function of PyTrees a compiled call that XLA does not inline.

    The mark is made for XLA:CPU. JAX 0.12 obeys it on GPUs, too, at the price of a few kernels. It serves two ends:

    - *Compile time.* An adaptive Runge–Kutta solve calls its vector field in four places (two for the size of the first
      step, one for the first stage, one in the loop). Inlined, each is optimised and compiled anew; outlined, they
      share one computation, which halves the compile time of a flow.
    - *Run time.* XLA fuses a cheap producer into each of its consumers and computes it again for each of their
      elements, which costs the attention kernel a factor of ten. `jax.lax.optimization_barrier` does not help: XLA's
      CPU compiler drops it before it fuses.
    """
    if PLAIN:
        return function

    # The mark is for the outer call alone: on the small calls within it would keep XLA from fusing them.
    return _marked(inlineable="false")(eqx.filter_jit(_marked(inlineable="true")(function)))


@contextmanager
def _marked(inlineable: str) -> Iterator[None]:
    with set_xla_metadata(inlineable=inlineable), one_program():
        yield
