"""The update of an Optax optimiser, with the extra arguments of line searches, L-BFGS and Polyak's step."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ._geometry.base import AbstractGeometry, Evaluation, value_and_outputs
from ._geometry.lagrangian import Lagrangian


def update(
    optimiser: optax.GradientTransformation,
    state: PyTree,
    geometry: AbstractGeometry,
    objective: Callable[[Any], Float[Array, ""]],
    model: PyTree,
    now: Evaluation,
) -> tuple[PyTree[Array], PyTree]:
    r"""The optimiser's updates of the parameters of an evaluated model, and its next state.

    The optimiser gets the gradient \( g_{ij} = -v_{ij} \), and for its extra arguments `value`, `grad` and `value_fn`
    the function c Q, with c the number of particles of positive mass (1 for a plain module). Its derivative is
    \( c\,m_{ij} g_{ij} \), with m the masses. For particles of equal mass, m = 1/c, this is g itself. For other masses
    it remains the slope of the values that a line search sees.
    """
    parameters = geometry.parameters(model)
    velocity = geometry.unpack(now.velocity, parameters)
    gradient = jax.tree.map(jnp.negative, velocity)
    scale, derivative = _derivative(geometry, model, now)
    # Optax's line searches compute steps and values in JAX's widest type.
    wide = jnp.result_type(float)

    def value_fn(trial: PyTree[Array]) -> Float[Array, ""]:
        trial = optax.tree.cast_like(trial, parameters)
        return (scale * value_and_outputs(objective, geometry.place(model, trial))[0]).astype(wide)

    extra = {"value": (scale * now.objective).astype(wide), "grad": derivative, "value_fn": value_fn}
    step = optax.with_extra_args_support(optimiser).update
    return step(gradient, state, parameters, **_accepted(step, extra))


def _derivative(geometry: AbstractGeometry, model: PyTree, now: Evaluation) -> tuple[Array, PyTree[Array]]:
    """The scale c, and the derivative of c Q as `jax.grad` gives it: conjugated for complex numbers."""
    packed, scale = now.velocity, jnp.ones_like(now.objective)
    if isinstance(geometry, Lagrangian):
        masses = model.measure.masses
        scale = jnp.sum(masses > 0, dtype=masses.dtype)
        packed = [scale * masses[:, :, None] * velocity for velocity in packed]
    velocity = geometry.unpack(packed, geometry.parameters(model))
    return scale, jax.tree.map(lambda leaf: -jnp.conj(leaf), velocity)


def _accepted(step: Callable, extra: dict[str, Any]) -> dict[str, Any]:
    """The arguments that an update takes: some of Optax's updates name theirs."""
    taken = inspect.signature(step).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken):
        return extra
    return {name: extra[name] for name in extra if name in {parameter.name for parameter in taken}}
