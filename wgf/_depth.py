"""The rule for depths: those that rounding puts outside [0, 1] are clipped, and those farther outside are errors."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ._backend.compat import is_traced
from ._checks import numbers, on_host

# The distance outside [0, 1] that counts as rounding: a few units in the last place of float32.
SLACK = 1e-6


def check_depth(argument: str, depth: ArrayLike | Sequence[Any]) -> Array:
    """Return depths in [0, 1] as an array; raise `ValueError` if they are not traced and lie farther outside.

    Traced depths are clipped, because a check at run time would cost time in every stage of every depth solve.
    """
    # The raw argument is tested: inside `jit`, an operation turns a constant into a tracer.
    if is_traced(*jax.tree.leaves(depth)):
        return _clip(jnp.asarray(depth))
    numbers(argument, depth)
    known = on_host(depth) if isinstance(depth, jax.Array) else np.asarray(depth)
    if not jnp.issubdtype(known.dtype, jnp.inexact):
        known = known.astype(jnp.result_type(float))
    # Negated, so that NaN counts as outside.
    outside = ~((known >= -SLACK) & (known <= 1 + SLACK))
    if outside.any():
        raise ValueError(f"`{argument}` must lie in [0, 1], from the prompts to the output; got {known[outside][0]}.")
    return jnp.asarray(known.clip(0, 1))


def one_depth(argument: str, depth: ArrayLike) -> Array:
    """Return one depth in [0, 1]; raise `ValueError` for arrays of them, or as `check_depth` does."""
    checked = check_depth(argument, depth)
    if checked.shape != ():
        raise ValueError(
            f"`{argument}` must be one number; got an array of shape {checked.shape}. Use `jax.vmap` for many."
        )
    return checked


def _clip(depth: Array) -> Array:
    """The nearest depths in [0, 1], with derivative 1 at both ends, where `jnp.clip` has ½."""
    depth = jnp.where(depth < 0, jnp.zeros_like(depth), depth)
    return jnp.where(depth > 1, jnp.ones_like(depth), depth)
