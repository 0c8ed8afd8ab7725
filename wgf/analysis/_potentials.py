"""Transport problems along τ: each starts from the potentials of the one before."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

_Found = TypeVar("_Found")


def carry_potentials(step: Callable[[Any, Any], tuple[Any, _Found]], tree: PyTree) -> _Found:
    """Apply `step(potentials, row) -> (potentials, found)` to each row of a tree whose arrays have an axis `[saves]`.

    **Returns:** what was found, with a leading axis `[saves]`. At the first τ no potentials are known.
    """
    arrays, static = eqx.partition(tree, eqx.is_array)

    def at_tau(initial, row):
        return step(initial, eqx.combine(row, static))

    shapes, _ = jax.eval_shape(at_tau, None, jax.tree.map(lambda leaf: leaf[0], arrays))
    # Infinite potentials mean that no guess is known.
    unknown = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.inf, leaf.dtype), shapes)
    return jax.lax.scan(at_tau, unknown, arrays)[1]
