"""What of a model moves under a flow, and how fast: the part of a flow that depends on what the model is."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..objective import Objective


class Evaluation(eqx.Module):
    """One value and gradient of Q.

    - `objective`: Q.
    - `outputs`: what the model answers to each prompt; `[0]` where the objective is a plain function.
    - `velocity`: dθ/dτ, a PyTree of the structure and shapes of the dynamics' parameters.
    - `dissipation`: −dQ/dτ.
    """

    objective: Float[Array, ""]
    outputs: Float[Array, "batch *classes"]
    velocity: PyTree[Array]
    dissipation: Float[Array, ""]


class AbstractDynamics(eqx.Module):
    """The steepest descent of Q in one geometry."""

    @abc.abstractmethod
    def parameters(self, model: Any) -> PyTree[Array]:
        """What moves."""

    @abc.abstractmethod
    def place(self, model: Any, parameters: PyTree[Array]) -> Any:
        """The same model with other parameters. Both may have a leading axis `[saves]`."""

    @abc.abstractmethod
    def evaluate(self, objective: Callable[[Any], Float[Array, ""]], model: Any) -> Evaluation:
        """Evaluate Q and the velocity of the parameters."""

    @abc.abstractmethod
    def norm(self, model: Any) -> Callable[[PyTree[Array]], Float[Array, ""]]:
        """The norm in which the step size control measures an error of the parameters."""


def value_and_outputs(
    objective: Callable[[Any], Float[Array, ""]], model: Any
) -> tuple[Float[Array, ""], Float[Array, "batch *classes"]]:
    """Q and the outputs it was computed from: none, where the objective is a plain function of the model."""
    if isinstance(objective, Objective):
        return objective.value_and_outputs(model)
    q = objective(model)
    return q, jnp.zeros(0, q.dtype)


def risk(objective: Callable[[Any], Float[Array, ""]], evaluation: Evaluation) -> Float[Array, ""]:
    """The risk R of an evaluated model: all of Q, where the objective is a plain function."""
    return objective.score(evaluation.outputs) if isinstance(objective, Objective) else evaluation.objective


def prompt_weights(objective: Callable[[Any], Float[Array, ""]]) -> Float[Array, " batch"]:
    """The weights of the data measure: none, where the objective is a plain function."""
    return objective.prompts.weights if isinstance(objective, Objective) else jnp.zeros(0)
