"""Rows of models along a run: placing their particles, and surveying Q, R, outputs and dissipation."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..models import AbstractModel
from ..objective import Objective
from ._velocity import evaluate


class Survey(eqx.Module):
    """What a row of models amounts to, each with leading axis `[saves]`."""

    objective: Float[Array, "*saves"]
    risk: Float[Array, "*saves"]
    dissipation: Float[Array, "*saves"]
    outputs: Float[Array, "..."]


def survey(objective: Objective, models: AbstractModel) -> Survey:
    """Evaluate models with leading axis `[saves]`, one at a time: the memory of one."""
    dynamic, static = eqx.partition(models, eqx.is_array)

    def one(arrays):
        now = evaluate(objective, eqx.combine(arrays, static))
        return Survey(now.objective, objective.score(now.outputs), now.dissipation, now.outputs)

    return jax.lax.map(one, dynamic)


def repeat_model(model: AbstractModel, saves: int) -> AbstractModel:
    """The model with every array repeated along a leading axis `[saves]`."""
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (saves, *leaf.shape)) if eqx.is_array(leaf) else leaf, model
    )


def place(model: AbstractModel, particles: PyTree[Array], tracers: tuple[PyTree[Array], ...]) -> AbstractModel:
    """The same model with other particles and tracers."""
    return model.with_particles(particles).with_tracer_particles(tracers)
