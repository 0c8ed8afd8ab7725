"""Q, R and the dissipation of a row of models."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..models import AbstractModel
from ..objective import Objective
from ._velocity import dissipation, objective_and_velocity


def evaluate(
    objective: Objective, model: AbstractModel, particles: PyTree[Array]
) -> tuple[Float[Array, " saves"], Float[Array, " saves"], Float[Array, " saves"]]:
    """Objective, risk and dissipation of `model` with each of `particles` (leading axis `[saves]`), one at a time."""

    def one(particles):
        current = model.with_particles(particles)
        q, v = objective_and_velocity(objective, current)
        return q, q - objective.penalty(current), dissipation(v, current.measure.masses)

    return jax.lax.map(one, particles)


def repeat_model(model: AbstractModel, saves: int) -> AbstractModel:
    """The model with every array repeated along a leading axis `[saves]`."""
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (saves, *leaf.shape)) if eqx.is_array(leaf) else leaf, model
    )


def place(
    model: AbstractModel, particles: PyTree[Array], tracers: tuple[PyTree[Array], ...]
) -> AbstractModel:
    """The same model with other particles and tracers."""
    return model.with_particles(particles).with_tracer_particles(tracers)
