"""Sums over particles that are spread over devices: one share per device, and one sum over devices."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, PyTree

from .mesh import PARTICLES, PROMPTS, parts

Batch = Float[Array, "batch token_dim length"]


def sum_of_shares(total: Callable[[PyTree[Array], Batch], Batch], particles: PyTree[Array], tokens: Batch) -> Batch:
    """Compute `total(particles, tokens)`, a sum over particles that treats each prompt independently.

    In the context of a mesh with axes `prompts` and `particles` (`jax.set_mesh`) every device sums its own particles
    for its own prompts. One sum over devices follows, and one of gradients in the backward pass. By default XLA would
    sum over devices in each iteration of the loops inside. Within a `vmap` over an axis of that name the share is that
    of one device already.

    **Arguments:**

    - `particles`: arrays with leading axis `[M]`.
    - `tokens`: `[B, D, N+1]`.
    """
    shape = parts(PARTICLES), parts(PROMPTS)
    width, batch = len(jax.tree.leaves(particles)[0]), len(tokens)
    if math.prod(shape) == 1 or width % shape[0] or batch % shape[1]:
        return total(particles, tokens)
    # Copies along the axis that an array lacks, so that its gradient keeps that axis through the loops.
    own = jax.tree.map(lambda leaf: _spread(_cut(leaf, shape[0])[:, None], shape), particles)
    shares = jax.vmap(jax.vmap(total))(own, _spread(_cut(tokens, shape[1])[None], shape))
    return jnp.sum(shares, axis=0).reshape(batch, *shares.shape[3:])


def _cut(array: Array, count: int) -> Array:
    return array.reshape(count, len(array) // count, *array.shape[1:])


def _spread(array: Array, shape: tuple[int, int]) -> Array:
    whole = jnp.broadcast_to(array, (*shape, *array.shape[2:]))
    # An axis with one part is not on the mesh, or is cut already.
    axes = (axis if count > 1 else None for axis, count in zip((PARTICLES, PROMPTS), shape, strict=True))
    return jax.lax.with_sharding_constraint(whole, PartitionSpec(*axes))
