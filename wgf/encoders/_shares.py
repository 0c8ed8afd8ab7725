"""A mean over particles in as many shares as devices, so that its loops move nothing between them."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, PyTree

Batch = Float[Array, "batch token_dim length"]


def sum_of_shares(total: Callable[[PyTree[Array], Batch], Batch], particles: PyTree[Array], tokens: Batch) -> Batch:
    """What `total(particles, tokens)` returns: a sum over particles, of each prompt by itself.

    In the context of a mesh with axes `prompts` and `particles` (`jax.set_mesh`), whose devices each hold a part of
    both, every device adds up its own particles for its own prompts; one sum over devices follows, and one more of
    gradients in the backward pass. Left to itself XLA would add up over devices in each turn of the loops within.

    **Arguments:**

    - `particles`: arrays with leading axis `[M]`.
    - `tokens`: `[B, D, N+1]`.
    """
    shape, width, batch = _parts(), len(jax.tree.leaves(particles)[0]), len(tokens)
    if math.prod(shape) == 1 or width % shape[0] or batch % shape[1]:
        return total(particles, tokens)
    # Copies along the axis that each of the two has no part in: so their gradients keep that axis through the loops.
    own = jax.tree.map(lambda leaf: _spread(_cut(leaf, shape[0])[:, None], shape), particles)
    shares = jax.vmap(jax.vmap(total))(own, _spread(_cut(tokens, shape[1])[None], shape))
    return jnp.sum(shares, axis=0).reshape(batch, *shares.shape[3:])


def _parts() -> tuple[int, int]:
    """In how many parts particles and prompts are cut."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return sizes.get("particles", 1), sizes.get("prompts", 1)


def _cut(array: Array, parts: int) -> Array:
    return array.reshape(parts, len(array) // parts, *array.shape[1:])


def _spread(array: Array, shape: tuple[int, int]) -> Array:
    whole = jnp.broadcast_to(array, (*shape, *array.shape[2:]))
    return jax.lax.with_sharding_constraint(whole, PartitionSpec("particles", "prompts"))
