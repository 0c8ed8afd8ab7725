"""Gradient flow and optimisers in `wgf rates`: many models of one shape, one after another in one program."""

from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ...flows import FlowSolution, TrainSolution, flow, train
from ...measures import ThreeEighths
from ...models import AbstractModel, Transformer
from ...objective import Objective


class FlowSchedule(NamedTuple):
    """Kutta's 3/8 rule with constant steps in τ, the same for all flows."""

    tau: float
    steps: int

    def options(self) -> dict:
        """The solver options of a flow."""
        dt0 = self.tau / self.steps
        return {"solver": ThreeEighths(), "controller": diffrax.ConstantStepSize(), "dt0": dt0}

    def taus(self) -> Float[Array, " saves"]:
        """The start and the end."""
        return jnp.array([0.0, self.tau])


class TrainingSchedule(NamedTuple):
    """AdamW on the mean-field gradient; Adam if `decoupled` is 0."""

    learning_rate: float
    epsilon: float
    decoupled: Float[Array, ""]
    updates: int

    def __call__(self, objective: Objective, model: AbstractModel) -> TrainSolution:
        """Train one model."""
        # The decay is an array, so that one compiled program runs both optimisers.
        optimiser = optax.adamw(self.learning_rate, eps=self.epsilon, weight_decay=self.decoupled)
        return train(objective, model, optimiser, steps=self.updates, throw=False)


class FinalValues(NamedTuple):
    """Values at the end of training, `[models]` each. `particles` is `[models, L, M, ...]`, or None if not needed."""

    outputs: Float[Array, "models batch"]
    risk: Float[Array, " models"]
    objective: Float[Array, " models"]
    particles: PyTree[Array] | None


@eqx.filter_jit
def flow_all(objective: Objective, models: Transformer, schedule: FlowSchedule) -> FinalValues:
    """The gradient flows of all models."""

    def end(model: Transformer) -> FinalValues:
        solved = flow(objective, model, schedule.taus(), throw=False, **schedule.options())
        return FinalValues(*_last(solved), solved.model_at(-1).measure.particles)

    return jax.lax.map(end, models)


@eqx.filter_jit
def train_all(objective: Objective, models: AbstractModel, schedule: TrainingSchedule) -> FinalValues:
    """The training of all models by an optimiser."""
    return jax.lax.map(lambda model: FinalValues(*_last(schedule(objective, model)), None), models)


def _last(solved: FlowSolution | TrainSolution) -> tuple[Array, Array, Array]:
    return solved.outputs[-1], solved.risk[-1], solved.objective[-1]
