"""The derivatives of an entropic value against sums over its plan, which NumPy writes out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

from wgf.transport._dual import optimal_value

EPSILON = 0.7


@pytest.fixture(scope="module")
def arguments():
    """A value, two clouds, weights and potentials: any will do, for the rule is that of the plan that they make."""
    keys = jax.random.split(jax.random.key(0), 6)
    x, y = jax.random.normal(keys[0], (6, 2)), jax.random.normal(keys[1], (4, 2))
    a, b = (jax.random.uniform(key, (n,), minval=0.1) for key, n in zip(keys[2:4], (6, 4), strict=True))
    f, g = (0.3 * jax.random.normal(key, (n,)) for key, n in zip(keys[4:], (6, 4), strict=True))
    return jnp.asarray(1.5), x, y, a, b, f, g, jnp.asarray(EPSILON)


def by_hand(arguments):
    _, x, y, a, b, f, g, epsilon = (np.asarray(value, float) for value in arguments)
    ways = x[:, None] - y
    exponents = (f[:, None] + g - np.sum(ways**2, axis=-1)) / epsilon
    plan = a[:, None] * b * np.exp(exponents)
    x_slope, y_slope = 2 * np.einsum("ij,ijd->id", plan, ways), -2 * np.einsum("ij,ijd->jd", plan, ways)
    return x_slope, y_slope, f, g, np.sum(plan * exponents)


def test_the_value_is_the_one_that_is_given(arguments):
    assert optimal_value(*arguments, None) == 1.5


@pytest.mark.parametrize("block", [None, 1, 4])
def test_derivatives_are_sums_over_the_plan(arguments, block):
    """In points, weights and ε; the kernel whole, and in blocks of rows."""
    slopes = jax.jit(jax.grad(lambda *args: optimal_value(*args, block), argnums=(1, 2, 3, 4, 7)))(*arguments)
    for found, expected in zip(slopes, by_hand(arguments), strict=True):
        np.testing.assert_allclose(found, expected, rtol=bound(1e-12, 1e-5), atol=bound(1e-13, 1e-6))


def test_the_value_and_the_potentials_have_no_derivative(arguments):
    """They are optimal: what they change is of second order."""
    for slope in jax.grad(lambda *args: optimal_value(*args, None), argnums=(0, 5, 6))(*arguments):
        np.testing.assert_array_equal(slope, 0)


def test_a_second_derivative_is_refused(arguments):
    def value(epsilon):
        return optimal_value(*arguments[:-1], epsilon, None)

    with pytest.raises(RuntimeError, match="a Sinkhorn divergence has first derivatives only"):
        jax.grad(jax.grad(value))(arguments[-1])
