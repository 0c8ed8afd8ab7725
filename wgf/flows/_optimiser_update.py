"""What `train` gives to optimisers that ask for more than a gradient: line searches, L-BFGS, Polyak's step."""

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
    the function c Q, with c the number of particles of positive mass (of a plain module: 1). Its derivative is
    \( c\,m_{ij} g_{ij} \), with m the masses. So for particles of equal masses, m = 1/c, it is g, in the scale of the
    updates; for other masses the slope that a line search is given is still that of the values that it sees.
    """
    parameters = geometry.parameters(model)
    velocity = geometry.unpack(now.velocity, parameters)
    gradient = jax.tree.map(jnp.negative, velocity)
    scale, derivative = _derivative(geometry, model, now)
    # Optax's line searches compute in JAX's widest type: the steps of their trials, and what they do with values.
    wide = jnp.result_type(float)

    def value_fn(trial: PyTree[Array]) -> Float[Array, ""]:
        trial = optax.tree.cast_like(trial, parameters)
        return (scale * value_and_outputs(objective, geometry.place(model, trial))[0]).astype(wide)

    extra = {"value": (scale * now.objective).astype(wide), "grad": derivative, "value_fn": value_fn}
    step = optax.with_extra_args_support(optimiser).update
    return step(gradient, state, parameters, **_accepted(step, extra))


def _derivative(geometry: AbstractGeometry, model: PyTree, now: Evaluation) -> tuple[Array, PyTree[Array]]:
    """The scale c, and the derivative of c Q as `jax.grad` would give it: of complex numbers the conjugate."""
    packed, scale = now.velocity, jnp.ones_like(now.objective)
    if isinstance(geometry, Lagrangian):
        masses = model.measure.masses
        scale = jnp.sum(masses > 0, dtype=masses.dtype)
        packed = [scale * masses[:, :, None] * velocity for velocity in packed]
    velocity = geometry.unpack(packed, geometry.parameters(model))
    return scale, jax.tree.map(lambda leaf: -jnp.conj(leaf), velocity)


def _accepted(step: Callable, extra: dict[str, Any]) -> dict[str, Any]:
    """Those that an update takes: a few of Optax's name all of theirs."""
    taken = inspect.signature(step).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken):
        return extra
    return {name: extra[name] for name in extra if name in {parameter.name for parameter in taken}}
