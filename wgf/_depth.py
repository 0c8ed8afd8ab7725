"""The rule for depths: what rounding puts outside [0, 1] is clipped, what lies farther outside is an error."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ._checks import is_traced, on_host

# How far outside [0, 1] a depth may lie as rounding does: a few units in the last place of float32.
SLACK = 1e-6


def clip_depth(depth: ArrayLike) -> Array:
    """The nearest depths in [0, 1]; of derivative 1 at both ends, where `jnp.clip` has ½."""
    depth = jnp.asarray(depth)
    depth = jnp.where(depth < 0, jnp.zeros_like(depth), depth)
    return jnp.where(depth > 1, jnp.ones_like(depth), depth)


def check_depth(argument: str, depth: ArrayLike) -> Array:
    """Return depths in [0, 1] as an array; raise `ValueError` where they are known and farther outside than rounding.

    Depths that are traced are clipped: a check at run time would be paid in every stage of every solve.
    """
    depth = jnp.asarray(depth)
    if not jnp.issubdtype(depth.dtype, jnp.inexact):
        depth = depth.astype(jnp.result_type(float))
    if not is_traced(depth):
        known = np.asarray(on_host(depth))
        # What is NaN is not inside anything.
        outside = known[~((known >= -SLACK) & (known <= 1 + SLACK))]
        if outside.size:
            raise ValueError(f"`{argument}` must lie in [0, 1]; got {outside.ravel()[0]}. Depth runs from 0 to 1.")
    return clip_depth(depth)
