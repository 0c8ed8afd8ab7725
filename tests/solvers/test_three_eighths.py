"""Kutta's 3/8 rule: a step by hand, and its error estimate."""

import diffrax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, whole

from wgf.solvers import ThreeEighths

SIZE = 0.5


def field(t, y, args=None):
    return jnp.cos(3 * t) - y**2


def solve(y0, solver=ThreeEighths(), **options):  # noqa: B008 (an immutable module)
    return diffrax.diffeqsolve(diffrax.ODETerm(field), solver, 0.0, SIZE, SIZE, y0, max_steps=256, **options)


def test_a_step_is_the_rule_by_hand():
    y, h = jnp.array([0.3, -0.7]), SIZE
    a = field(0.0, y)
    b = field(h / 3, y + h * a / 3)
    c = field(2 * h / 3, y + h * (b - a / 3))
    d = field(h, y + h * (a - b + c))
    expected = y + h * (a + 3 * b + 3 * c + d) / 8
    np.testing.assert_allclose(solve(y).ys[-1], expected, rtol=bound(1e-14, 1e-6))


def test_no_two_stages_share_a_time_and_all_weights_are_positive():
    _, weights, nodes = whole(ThreeEighths)
    np.testing.assert_allclose(nodes, [0, 1 / 3, 2 / 3, 1], atol=1e-15)
    np.testing.assert_allclose(weights, [1 / 8, 3 / 8, 3 / 8, 1 / 8], atol=1e-15)
    assert ThreeEighths().order(None) == 4


@pytest.mark.parametrize("rtol", [1e-3, 1e-5])
def test_its_error_estimate_controls_steps(rtol):
    y = jnp.array([0.3, -0.7])
    tight = bound(1e-9, 1e-6)
    exact = solve(y, diffrax.Dopri8(), stepsize_controller=diffrax.PIDController(tight, tight)).ys[-1]
    found = solve(y, stepsize_controller=diffrax.PIDController(rtol, rtol))
    assert jnp.max(jnp.abs(found.ys[-1] - exact)) < rtol
    assert found.stats["num_steps"] > 1
