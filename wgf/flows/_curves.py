"""Q, R, outputs and dissipation along the saves of a run."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._backend.precision import Module
from ._geometry.base import AbstractGeometry, risk
from ._velocity import evaluate


class Curves(Module):
    """The values of a row of models, each with leading axis `[saves]`."""

    objective: Float[Array, "*saves"]
    risk: Float[Array, "*saves"]
    dissipation: Float[Array, "*saves"]
    outputs: Float[Array, "..."]


def curves(geometry: AbstractGeometry, objective: Callable[[Any], Float[Array, ""]], models: PyTree) -> Curves:
    """Evaluate models with leading axis `[saves]`, one at a time, in the memory of one."""
    dynamic, static = eqx.partition(models, eqx.is_array)

    def one(arrays):
        now = evaluate(geometry, objective, eqx.combine(arrays, static))
        return Curves(now.objective, risk(objective, now), now.dissipation, now.outputs)

    return jax.lax.map(one, dynamic)


def repeat_model(model: PyTree, saves: int) -> PyTree:
    """The model with every array repeated along a leading axis `[saves]`."""
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (saves, *leaf.shape)) if eqx.is_array(leaf) else leaf, model
    )
