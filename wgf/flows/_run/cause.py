"""Why a flow failed, found from the snapshot where it stopped."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._backend.compat import ω
from ..._finite import all_finite
from ...solvers._rkc import spectral_radius
from .._problem import Problem
from .._solution import RESULTS
from .._state import State, field
from .segment import Snapshot


def cause_of_failure(problem: Problem, snapshot: Snapshot, result: RESULTS) -> RESULTS:
    """A more precise code for a failed solve: `not_finite`, `too_tight` or `stiff` where one of them is the cause."""
    too_short, stalled = bool(result == RESULTS.dt_min), bool(result == RESULTS.stalled)
    if too_short and not bool(_is_finite_near(problem, snapshot)):
        return RESULTS.not_finite
    if (too_short or stalled) and _is_too_tight(problem):
        return RESULTS.too_tight
    if stalled and _is_explicit(problem.solver) and bool(_is_at_stability_bound(problem, snapshot)):
        return RESULTS.stiff
    return result


def _is_too_tight(problem: Problem) -> bool:
    """Whether the tolerance is below ten times the machine epsilon."""
    rtol = getattr(problem.controller, "rtol", None)
    return rtol is not None and bool(rtol < 10 * jnp.finfo(problem.taus.dtype).eps)


def _is_explicit(solver: diffrax.AbstractSolver) -> bool:
    return isinstance(solver, (diffrax.AbstractERK, diffrax.Euler))


@eqx.filter_jit
def _is_finite_near(problem: Problem, snapshot: Snapshot) -> Bool[Array, ""]:
    """Whether the field is finite at the snapshot, and at 1 to 10⁴ minimal steps after it."""
    slope = field(snapshot.tau, snapshot.state, problem.args)
    least = 4 * jnp.finfo(problem.taus.dtype).eps * jnp.max(jnp.abs(problem.taus))

    def at(distance: Float[Array, ""]) -> Bool[Array, ""]:
        return all_finite(field(snapshot.tau + distance, (snapshot.state**ω + distance * slope**ω).ω, problem.args))

    return all_finite(slope) & jnp.all(jax.lax.map(at, least * 10.0 ** jnp.arange(5, dtype=least.dtype)))


@eqx.filter_jit
def _is_at_stability_bound(problem: Problem, snapshot: Snapshot) -> Bool[Array, ""]:
    """Whether stability bounds the step: it times the spectral radius of the Jacobian is above 1."""

    def of_state(tau: Any, state: State) -> State:
        return field(tau, state, problem.args)

    slope = of_state(snapshot.tau, snapshot.state)
    _, radius = spectral_radius(of_state, snapshot.tau, snapshot.state, slope)
    return (snapshot.next_tau - snapshot.tau) * radius > 1
