"""The iteration with one kernel: marginals, the range of its scalings, and the choice of its relaxation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound
from scipy.special import logsumexp

from wgf.transport._gibbs import Gibbs
from wgf.transport._relaxed import _relax, _Scalings, _step, relaxed
from wgf.transport._state import State

X, Y = jax.random.normal(jax.random.key(0), (7, 2)), 0.5 + jax.random.normal(jax.random.key(1), (5, 2))
A, B = jnp.array([1.0, 2, 3, 4, 5, 6, 7]) / 28, jnp.array([5.0, 4, 3, 2, 1]) / 15
TIGHT = bound(1e-8, 1e-5)


def start(most=1024):
    zeros = jnp.zeros_like(A), jnp.zeros_like(B)
    return State(*zeros, jnp.asarray(0.0), jnp.asarray(0), jnp.full(most, -1.0), jnp.asarray(False))


@functools.partial(jax.jit, static_argnums=1)
def solve(epsilon, rows):
    state = start()
    return relaxed(Gibbs(X, Y, state.f, state.g, epsilon, rows), A, B, state, TIGHT, 1024)


def squares():
    return np.sum((np.asarray(X, float)[:, None] - np.asarray(Y, float)) ** 2, axis=-1)


def by_hand(epsilon):
    """Potentials by 2,000 plain iterations in logarithms, with f normalised to mean 0."""
    cost, a, b = squares(), np.log(np.asarray(A, float)), np.log(np.asarray(B, float))
    f, g = np.zeros(7), np.zeros(5)
    for _ in range(2000):
        f = -epsilon * logsumexp((g - cost) / epsilon + b, axis=1)
        g = -epsilon * logsumexp((f[:, None] - cost) / epsilon + a[:, None], axis=0)
    return f - f.mean(), g + f.mean()


@pytest.mark.parametrize("rows", [7, 3])
def test_potentials_are_those_of_the_plain_iteration(rows):
    """The kernel whole, and in blocks of rows."""
    state = solve(0.5, rows)
    assert float(state.error) <= TIGHT
    assert bool(state.inside)
    f, g = by_hand(0.5)
    mean = jnp.mean(state.f)
    np.testing.assert_allclose(state.f - mean, f, atol=bound(1e-6, 1e-4))
    np.testing.assert_allclose(state.g + mean, g, atol=bound(1e-6, 1e-4))


def test_the_last_iteration_makes_the_second_marginal_exact():
    state = solve(0.5, 7)
    potentials = np.asarray(state.f, float)[:, None] + np.asarray(state.g, float)
    plan = np.asarray(A)[:, None] * np.asarray(B) * np.exp((potentials - squares()) / 0.5)
    np.testing.assert_allclose(plan.sum(axis=0), B, rtol=bound(1e-13, 1e-5))
    np.testing.assert_allclose(plan.sum(axis=1), A, atol=TIGHT)


def test_it_ends_with_finite_potentials_where_scalings_leave_their_range():
    """The least squared distance over ε is far beyond the range of exponentials."""
    state = solve(1e-4, 7)
    assert not bool(state.inside)
    assert bool(jnp.isfinite(state.f).all() & jnp.isfinite(state.g).all())


@pytest.mark.parametrize(("surplus", "taken"), [(1e-3, 1.8), (-3.0, 1.0)])
def test_a_relaxed_step_is_taken_where_it_gains_enough(surplus, taken):
    """Near the maximum of the dual value; far from it a plain step is."""
    moved = _step(jnp.ones(7), jnp.full(7, surplus), A, jnp.asarray(1.8))
    np.testing.assert_allclose(moved, 1 - taken * surplus, rtol=bound(1e-12, 1e-5))


def scalings(error, iterations, relaxation):
    state = start()._replace(error=jnp.asarray(error), iterations=jnp.asarray(iterations))
    zeros = jnp.zeros_like(A), jnp.zeros_like(B)
    return _Scalings(*zeros, state, jnp.asarray(relaxation), jnp.asarray(1.0))


def test_the_relaxation_is_the_best_of_young_s_theory_for_the_rate_that_is_seen():
    """Without relaxation errors fall at ϑ²; the best ω is 2 / (1 + √(1 − ϑ²))."""
    learnt = _relax(scalings(0.9**4, 4, 1.0))
    np.testing.assert_allclose(learnt.relaxation, 2 / (1 + np.sqrt(1 - 0.9)), rtol=bound(1e-12, 1e-5))
    np.testing.assert_allclose(learnt.mark, 0.9**4, rtol=bound(1e-12, 1e-6))


@pytest.mark.parametrize(
    ("error", "iterations", "relaxation"),
    [(0.9**4, 3, 1.0), (0.5**4, 4, 1.6), (1.5, 4, 1.0)],
    ids=["between updates", "a rate of ω − 1 or less", "errors that grow"],
)
def test_the_relaxation_is_kept_where_nothing_is_learnt(error, iterations, relaxation):
    assert _relax(scalings(error, iterations, relaxation)).relaxation == jnp.asarray(relaxation)
