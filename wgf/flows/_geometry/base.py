"""The geometry of a flow: which arrays of a model move, and how fast they descend."""

import abc
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._backend.precision import Module
from ..._checks import numbers
from ...objective import Objective


class Evaluation(Module):
    """One value and gradient of Q.

    - `objective`: Q.
    - `outputs`: the model's output for each prompt; `[0]` if the objective is a plain function.
    - `velocity`: dθ/dτ of the geometry's parameters, packed.
    - `dissipation`: −dQ/dτ; on a grid at temperature σ, −dF/dτ of the free energy F = Q − σS.
    - `courant`: the Courant number per unit of time; 0 if explicit steps of any length keep masses positive.
    """

    objective: Float[Array, ""]
    outputs: Float[Array, "batch *classes"]
    velocity: list[Array]
    dissipation: Float[Array, ""]
    courant: Float[Array, ""]


class AbstractGeometry(Module):
    """The steepest descent of Q in one geometry."""

    @abc.abstractmethod
    def parameters(self, model: Any) -> PyTree[Array]:
        """The arrays that move."""

    @abc.abstractmethod
    def place(self, model: Any, parameters: PyTree[Array]) -> Any:
        """The same model with other parameters. Both may have a leading axis `[saves]`."""

    @abc.abstractmethod
    def pack(self, parameters: PyTree[Array]) -> list[Array]:
        """The parameters in as few arrays as possible."""

    @abc.abstractmethod
    def unpack(self, packed: list[Array], like: PyTree[Array]) -> PyTree[Array]:
        """The inverse of `pack`: parameters with the structure and shapes of `like`."""

    @abc.abstractmethod
    def evaluate(self, objective: Callable[[Any], Float[Array, ""]], model: Any) -> Evaluation:
        """Evaluate Q and the velocity of the parameters."""

    @abc.abstractmethod
    def norm(self, model: Any) -> Callable[[list[Array]], Float[Array, ""]]:
        """The norm in which the step size control measures an error of the packed parameters."""

    @abc.abstractmethod
    def solver(self) -> diffrax.AbstractSolver:
        """The default solver without noise."""

    @abc.abstractmethod
    def controller(
        self, rtol: Float[Array, ""], atol: Float[Array, ""], norm: Callable[[Any], Any], taus: Float[Array, " saves"]
    ) -> diffrax.AbstractStepSizeController:
        """The default step size controller, for a norm of the solver's whole state."""

    @abc.abstractmethod
    def noise(self, model: Any) -> PyTree[jax.ShapeDtypeStruct] | None:
        """The shapes of the Brownian motions that drive the parameters at a positive temperature.

        They broadcast to the parameters' own. None where temperature is part of the velocity, and there is no noise.
        """


def error_control(rtol, atol, norm, taus: Float[Array, " saves"]) -> diffrax.PIDController:
    """Bound the error of each step. Fail with a code of its own if steps fall below four times the spacing of τ.

    Smaller steps would not advance τ. The factor 4 is below the 100 ulps within which Diffrax extends the last step
    to the end.
    """
    least = 4 * jnp.finfo(taus.dtype).eps * jnp.max(jnp.abs(taus))
    return diffrax.PIDController(rtol, atol, norm=norm, dtmin=least, force_dtmin=False)


def real_dtype(parameters: PyTree[Array]) -> jnp.dtype:
    """The type of real numbers to which the parameters promote. τ, tolerances and integrals have it too."""
    return jnp.result_type(*(jnp.finfo(leaf.dtype).dtype for leaf in jax.tree.leaves(parameters)))


def value_and_outputs(
    objective: Callable[[Any], Float[Array, ""]], model: Any
) -> tuple[Float[Array, ""], Float[Array, "batch *classes"]]:
    """Q and the outputs from which it is computed; no outputs if the objective is a plain function of the model."""
    if isinstance(objective, Objective):
        return objective.value_and_outputs(model)
    q = numbers("objective", objective(model))
    if q.shape != () or not jnp.issubdtype(q.dtype, jnp.floating):
        raise ValueError(
            f"`objective` must return one real number; got {q.dtype} of shape {q.shape}. Sum or average it."
        )
    return q, jnp.zeros(0, q.dtype)


def risk(objective: Callable[[Any], Float[Array, ""]], evaluation: Evaluation) -> Float[Array, ""]:
    """The risk R of an evaluated model; Q itself if the objective is a plain function."""
    return objective.score(evaluation.outputs) if isinstance(objective, Objective) else evaluation.objective


def prompt_weights(objective: Callable[[Any], Float[Array, ""]]) -> Float[Array, " batch"]:
    """The weights of the data measure; empty if the objective is a plain function."""
    return objective.prompts.weights if isinstance(objective, Objective) else jnp.zeros(0)
