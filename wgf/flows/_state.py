"""What the outer solver of a flow moves, and its vector field."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._dynamics import AbstractDynamics
from ._velocity import evaluate, tracer_velocity, tracers_of


class State(eqx.Module):
    """Parameters, tracers, and the integrals so far of the dissipation and of the Courant numbers a unit of time.

    Lists of leaves, since Diffrax's loops cannot hold the empty tuples that a PyTree of a user's own may contain.
    """

    parameters: list[Array]
    tracers: list[list[Array]]
    dissipated: Float[Array, "*saves"]
    courant: Float[Array, "*saves"]

    def place(self, dynamics: AbstractDynamics, model: PyTree) -> PyTree:
        """The model with this state's parameters and tracers."""
        placed = dynamics.place(model, _like(self.parameters, dynamics.parameters(model)))
        if not self.tracers:
            return placed
        tracers = zip(self.tracers, tracers_of(model), strict=True)
        return placed.with_tracer_particles(tuple(_like(leaves, measure.particles) for leaves, measure in tracers))


def start(dynamics: AbstractDynamics, model: PyTree) -> State:
    """The state that a flow starts from."""
    parameters = jax.tree.leaves(dynamics.parameters(model))
    zero = jnp.zeros((), jnp.result_type(*parameters))
    return State(parameters, [jax.tree.leaves(measure.particles) for measure in tracers_of(model)], zero, zero)


def field(tau, state: State, args: tuple[AbstractDynamics, Any, PyTree]) -> State:
    """The vector field of the flow, with `args` the dynamics, the objective and the model that is placed into."""
    dynamics, objective, model = args
    model = state.place(dynamics, model)
    now = evaluate(dynamics, objective, model)
    tracers = [jax.tree.leaves(v) for v in tracer_velocity(objective, model)] if state.tracers else []
    return State(jax.tree.leaves(now.velocity), tracers, now.dissipation, now.courant)


def _like(leaves: list[Array], parameters: PyTree[Array]) -> PyTree[Array]:
    return jax.tree.unflatten(jax.tree.structure(parameters), leaves)
