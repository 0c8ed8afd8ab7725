"""The symmetric iteration: the plan of a cloud to itself, at the same rate for every ε."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

from wgf.transport._gibbs import Gibbs
from wgf.transport._state import State
from wgf.transport._symmetric import symmetric

X = jax.random.normal(jax.random.key(0), (9, 2))
# The last point has no mass.
A = jnp.array([1.0, 2, 3, 4, 5, 6, 7, 8, 0]) / 36
TIGHT = bound(1e-10, 1e-5)


@jax.jit
def solve(epsilon, most):
    zero = jnp.zeros_like(A)
    start = State(zero, zero, jnp.asarray(jnp.inf), jnp.asarray(0), jnp.full(64, -1.0), jnp.asarray(True))
    return symmetric(Gibbs(X, X, zero, zero, epsilon, 9), A, start, TIGHT, most)


@pytest.mark.parametrize("epsilon", [1e-3, 0.3, 100.0])
def test_the_plan_has_the_marginals(epsilon):
    state = solve(epsilon, 64)
    squares = np.sum((np.asarray(X)[:, None] - np.asarray(X)) ** 2, axis=-1)
    f, a = np.asarray(state.f, float), np.asarray(A, float)
    plan = a[:, None] * a * np.exp((f[:, None] + f - squares) / epsilon)
    np.testing.assert_allclose(plan.sum(axis=1), a, atol=10 * TIGHT)
    np.testing.assert_array_equal(state.f, state.g)
    assert float(state.error) <= TIGHT
    assert int(state.iterations) <= 20


def test_it_stops_at_the_most_iterations_with_their_errors_listed():
    state = solve(0.3, 3)
    assert int(state.iterations) == 3
    errors = np.asarray(state.errors)
    assert np.all(errors[:3] > TIGHT)
    assert np.all(errors[3:] == -1)
    assert float(state.error) == errors[2]
