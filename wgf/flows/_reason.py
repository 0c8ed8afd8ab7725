"""Why a flow failed: what the solver's code does not tell, asked of the stage where it stopped."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from equinox.internal import ω
from jaxtyping import Array, Bool, Float

from .._finite import all_finite
from ._chebyshev import spectral_radius
from ._chunk import Stage
from ._problem import Problem
from ._solution import RESULTS
from ._state import State, field


def reason(problem: Problem, stage: Stage, result: RESULTS) -> RESULTS:
    """A failed solve's code, made more precise: `not_finite`, `too_tight` or `stiff` where one of them is the cause."""
    too_short, stalled = bool(result == RESULTS.dt_min), bool(result == RESULTS.stalled)
    if too_short and not bool(_is_finite_near(problem, stage)):
        return RESULTS.not_finite
    if (too_short or stalled) and _is_too_tight(problem):
        return RESULTS.too_tight
    if stalled and _is_explicit(problem.solver) and bool(_is_at_stability_bound(problem, stage)):
        return RESULTS.stiff
    return result


def _is_too_tight(problem: Problem) -> bool:
    """Whether the tolerance lies below ten times the spacing of numbers at 1."""
    rtol = getattr(problem.controller, "rtol", None)
    return rtol is not None and bool(rtol < 10 * jnp.finfo(problem.taus.dtype).eps)


def _is_explicit(solver: diffrax.AbstractSolver) -> bool:
    return isinstance(solver, (diffrax.AbstractERK, diffrax.Euler))


@eqx.filter_jit
def _is_finite_near(problem: Problem, stage: Stage) -> Bool[Array, ""]:
    """Whether the field is finite at the stage, and 1 to 10⁴ of the least steps beyond it."""
    slope = field(stage.tau, stage.state, problem.args)
    least = 4 * jnp.finfo(problem.taus.dtype).eps * jnp.max(jnp.abs(problem.taus))

    def at(distance: Float[Array, ""]) -> Bool[Array, ""]:
        return all_finite(field(stage.tau + distance, (stage.state**ω + distance * slope**ω).ω, problem.args))

    return all_finite(slope) & jnp.all(jax.lax.map(at, least * 10.0 ** jnp.arange(5, dtype=least.dtype)))


@eqx.filter_jit
def _is_at_stability_bound(problem: Problem, stage: Stage) -> Bool[Array, ""]:
    """Whether the step times the spectral radius of the field's Jacobian is as large as explicit methods stand."""

    def of_state(tau: Any, state: State) -> State:
        return field(tau, state, problem.args)

    slope = of_state(stage.tau, stage.state)
    _, radius = spectral_radius(of_state, stage.tau, stage.state, slope)
    return (stage.next_tau - stage.tau) * radius > 1
