"""Sums over particles that are spread over devices: one share per device, and one sum over devices."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, PyTree

from .mesh import PARTICLES, PROMPTS, parts

Batch = Float[Array, "batch token_dim length"]
Total = Callable[[PyTree[Array], Batch], Batch]


def shares_of(particles: PyTree[Array], tokens: Batch) -> tuple[int, int]:
    """The numbers of shares into which the mesh in context cuts a sum: of particles `[M]`, of prompts `[B]`.

    Both are 1 without a mesh (`jax.set_mesh`) that has an axis `particles` or `prompts`, or if one does not divide. For
    the axis of a `vmap` of that name it is 1, too: the share is that of one device already.
    """
    shape = parts(PARTICLES), parts(PROMPTS)
    width, batch = len(jax.tree.leaves(particles)[0]), len(tokens)
    return (1, 1) if width % shape[0] or batch % shape[1] else shape


def in_shares(total: Total, shares: tuple[int, int]) -> Total:
    """The function `total(particles, tokens)`, a sum over particles that treats each prompt independently, in shares.

    Every device sums its own particles for its own prompts. One sum over devices follows, and one of gradients in the
    backward pass. By default XLA would sum over devices in each iteration of the loops inside.
    """
    return total if math.prod(shares) == 1 else functools.partial(_sum_of_shares, total, shares)


def _sum_of_shares(total: Total, shares: tuple[int, int], particles: PyTree[Array], tokens: Batch) -> Batch:
    # Copies along the axis that an array lacks, so that its gradient keeps that axis through the loops.
    own = jax.tree.map(lambda leaf: _spread(_cut(leaf, shares[0])[:, None], shares), particles)
    sums = jax.vmap(jax.vmap(total))(own, _spread(_cut(tokens, shares[1])[None], shares))
    return jnp.sum(sums, axis=0).reshape(tokens.shape)


def _cut(array: Array, count: int) -> Array:
    return array.reshape(count, len(array) // count, *array.shape[1:])


def _spread(array: Array, shape: tuple[int, int]) -> Array:
    whole = jnp.broadcast_to(array, (*shape, *array.shape[2:]))
    # An axis with one part is not on the mesh, or is cut already.
    axes = (axis if count > 1 else None for axis, count in zip((PARTICLES, PROMPTS), shape, strict=True))
    return jax.lax.with_sharding_constraint(whole, PartitionSpec(*axes))
