"""A mean over particles in as many shares as devices, so that its loops move nothing between them."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, PyTree

from .mesh import PARTICLES, PROMPTS, parts

Batch = Float[Array, "batch token_dim length"]


def sum_of_shares(total: Callable[[PyTree[Array], Batch], Batch], particles: PyTree[Array], tokens: Batch) -> Batch:
    """What `total(particles, tokens)` returns: a sum over particles, of each prompt by itself.

    In the context of a mesh with axes `prompts` and `particles` (`jax.set_mesh`), whose devices each hold a part of
    both, every device adds up its own particles for its own prompts; one sum over devices follows, and one more of
    gradients in the backward pass. Left to itself XLA would add up over devices in each turn of the loops within.
    Within a `vmap` over an axis of that name it is cut already.

    **Arguments:**

    - `particles`: arrays with leading axis `[M]`.
    - `tokens`: `[B, D, N+1]`.
    """
    shape = parts(PARTICLES), parts(PROMPTS)
    width, batch = len(jax.tree.leaves(particles)[0]), len(tokens)
    if math.prod(shape) == 1 or width % shape[0] or batch % shape[1]:
        return total(particles, tokens)
    # Copies along the axis that each of the two has no part in: so their gradients keep that axis through the loops.
    own = jax.tree.map(lambda leaf: _spread(_cut(leaf, shape[0])[:, None], shape), particles)
    shares = jax.vmap(jax.vmap(total))(own, _spread(_cut(tokens, shape[1])[None], shape))
    return jnp.sum(shares, axis=0).reshape(batch, *shares.shape[3:])


def _cut(array: Array, count: int) -> Array:
    return array.reshape(count, len(array) // count, *array.shape[1:])


def _spread(array: Array, shape: tuple[int, int]) -> Array:
    whole = jnp.broadcast_to(array, (*shape, *array.shape[2:]))
    # An axis of one part lies on none of the mesh's, or is cut already.
    axes = (axis if count > 1 else None for axis, count in zip((PARTICLES, PROMPTS), shape, strict=True))
    return jax.lax.with_sharding_constraint(whole, PartitionSpec(*axes))
