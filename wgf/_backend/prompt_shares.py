"""A model's pass over prompts that are spread over devices."""

import functools
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, PyTree

from .device_sums import Batch
from .mesh import PROMPTS, parts

_T = TypeVar("_T")
_R = TypeVar("_R", bound=PyTree[Array])


def over_prompts(push: Callable[[Batch, _T], _R], batch: int) -> Callable[[Batch, _T], _R]:
    """The function `push(tokens, model)`, which treats each of `batch` prompts independently.

    In the context of a mesh with an axis `prompts` (`jax.set_mesh`) every device has a copy of the model for its own
    prompts. The gradients of the copies are summed once, after all layers; those of a shared model would be summed
    after each layer.
    """
    count = parts(PROMPTS)
    return push if count == 1 or batch % count else functools.partial(_push_shares, push, count)


def _push_shares(push: Callable[[Batch, _T], _R], count: int, tokens: Batch, model: _T) -> _R:
    arrays, static = eqx.partition(model, eqx.is_array)

    def on_one(tokens, arrays):
        return push(tokens, eqx.combine(arrays, static))

    copies = jax.tree.map(lambda leaf: _spread(jnp.broadcast_to(leaf, (count, *leaf.shape))), arrays)
    shares = _spread(tokens.reshape(count, len(tokens) // count, *tokens.shape[1:]))
    pushed = jax.vmap(on_one, axis_name=PROMPTS, spmd_axis_name=PROMPTS)(shares, copies)
    return jax.tree.map(lambda leaf: leaf.reshape(len(tokens), *leaf.shape[2:]), pushed)


def _spread(leaf: Array) -> Array:
    """One part per device along the first axis; other axes are left as they are."""
    rest = (PartitionSpec.UNCONSTRAINED,) * (leaf.ndim - 1)
    return jax.lax.with_sharding_constraint(leaf, PartitionSpec(PROMPTS, *rest))
