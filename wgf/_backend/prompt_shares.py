"""A model's pass over prompts that are spread over devices."""

from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array

from .device_sums import Batch
from .mesh import PROMPTS, parts

_Model = TypeVar("_Model")


def over_prompts(push: Callable[[_Model, Batch], Batch], model: _Model, tokens: Batch) -> Batch:
    """Compute `push(model, tokens)`, which treats each prompt independently.

    In the context of a mesh with an axis `prompts` (`jax.set_mesh`) every device has a copy of the model for its own
    prompts. The gradients of the copies are summed once, after all layers; those of a shared model would be summed
    after each layer.
    """
    count, batch = parts(PROMPTS), len(tokens)
    if count == 1 or batch % count:
        return push(model, tokens)
    arrays, static = eqx.partition(model, eqx.is_array)

    def on_one(arrays, tokens):
        return push(eqx.combine(arrays, static), tokens)

    copies = jax.tree.map(lambda leaf: _spread(jnp.broadcast_to(leaf, (count, *leaf.shape))), arrays)
    shares = _spread(tokens.reshape(count, batch // count, *tokens.shape[1:]))
    pushed = jax.vmap(on_one, axis_name=PROMPTS, spmd_axis_name=PROMPTS)(copies, shares)
    return pushed.reshape(batch, *pushed.shape[2:])


def _spread(leaf: Array) -> Array:
    """One part per device along the first axis; other axes are left as they are."""
    rest = (PartitionSpec.UNCONSTRAINED,) * (leaf.ndim - 1)
    return jax.lax.with_sharding_constraint(leaf, PartitionSpec(PROMPTS, *rest))
