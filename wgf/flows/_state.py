"""The state of a flow's outer solver, and its vector field."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._backend.precision import Module
from ._geometry.base import AbstractGeometry, real_dtype
from ._tracers import joined, strips
from ._velocity import evaluate, strip_velocity, tracers_of


class State(Module):
    """Parameters, tracers, and the integrals of the dissipation and of the Courant number per unit of time.

    A solver does its arithmetic on each array, and each operation takes time to compile, so there are few arrays:
    `parameters` as the geometry packs them, and all tracers in one array of strips.
    """

    parameters: list[Array]
    tracers: list[Float[Array, "*saves strips width dim"]]
    dissipated: Float[Array, "*saves"]
    courant: Float[Array, "*saves"]

    def without_integrals(self) -> "State":
        """The state with zero integrals: the part of it on which the vector field depends."""
        return State(self.parameters, self.tracers, jnp.zeros_like(self.dissipated), jnp.zeros_like(self.courant))

    def place(self, geometry: AbstractGeometry, model: PyTree) -> PyTree:
        """The model with this state's parameters and tracers."""
        named = self.named(geometry, model)
        placed = geometry.place(model, named["parameters"])
        return placed.with_tracer_particles(named["tracers"]) if self.tracers else placed

    def named(self, geometry: AbstractGeometry, model: PyTree) -> dict[str, PyTree[Array]]:
        """The parts of the state in the structure of the model; the inverse of `pack`."""
        return {
            "parameters": geometry.unpack(self.parameters, geometry.parameters(model)),
            "tracers": joined(self.tracers[0], tracers_of(model)) if self.tracers else (),
            "dissipated": self.dissipated,
            "courant": self.courant,
        }


def pack(
    geometry: AbstractGeometry, *, parameters: PyTree[Array], tracers: Sequence[PyTree[Array]], **integrals: Array
) -> State:
    """The state with these parameters, tracers (the particles of each measure) and integrals."""
    return State(geometry.pack(parameters), [strips(tracers)] if tracers else [], **integrals)


def start(geometry: AbstractGeometry, model: PyTree) -> State:
    """The state that a flow starts from."""
    parameters = geometry.parameters(model)
    zero = jnp.zeros((), real_dtype(parameters))
    tracers = [measure.particles for measure in tracers_of(model)]
    return pack(geometry, parameters=parameters, tracers=tracers, dissipated=zero, courant=zero)


def field(tau, state: State, args: tuple[AbstractGeometry, Any, PyTree]) -> State:
    """The vector field of the flow. `args` are the geometry, the objective and a model for all that does not move."""
    geometry, objective, model = args
    model = geometry.place(model, geometry.unpack(state.parameters, geometry.parameters(model)))
    now = evaluate(geometry, objective, model)
    tracers = [strip_velocity(objective, model, each) for each in state.tracers]
    return State(now.velocity, tracers, now.dissipation, now.courant)
