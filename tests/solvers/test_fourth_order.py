"""The two Runge–Kutta methods of order four: their conditions, and the order that is measured."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import float64_only, whole

from wgf.measures import EqualEighths, ThreeEighths
from wgf.solvers._constant_steps import march

each_fourth_order = pytest.mark.parametrize("method", [EqualEighths(), ThreeEighths()], ids=lambda x: type(x).__name__)


@float64_only
@each_fourth_order
def test_values_and_gradients_are_of_fourth_order(method):
    """A pendulum whose field moves with depth; gradients with respect to its start and a parameter of the field."""

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def both(solver, steps):
        def end(start, force):
            def field(depth, tokens):
                angle, speed = tokens[0, 0]
                return jnp.array([[[3 * speed, force * jnp.cos(5 * depth) * speed - 4 * jnp.sin(angle)]]])

            return jnp.sum(jnp.sin(march(field, solver, steps, start[None, None])))

        value, slopes = jax.value_and_grad(end, argnums=(0, 1))(jnp.array([1.0, 0.5]), 2.0)
        return value, jnp.append(*slopes)

    exact = both(diffrax.Tsit5(), 400)
    steps = [8, 16, 32, 64]
    errors = np.array([[jnp.linalg.norm(x - y) for x, y in zip(both(method, n), exact, strict=True)] for n in steps])
    slopes = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert np.all((slopes > -4.3) & (slopes < -3.7)), (slopes, errors)


@each_fourth_order
def test_the_eight_conditions_of_order_four(method):
    a, b, c = whole(method)
    np.testing.assert_allclose(a.sum(axis=1), c, atol=1e-15)
    found = [b.sum(), b @ c, b @ c**2, b @ a @ c, b @ c**3, b @ (c * (a @ c)), b @ a @ c**2, b @ a @ a @ c]
    np.testing.assert_allclose(found, 1 / np.array([1, 2, 3, 6, 4, 8, 12, 24]), rtol=1e-14)
    # Not of order five: some condition of it is missed by far.
    assert max(abs(b @ c**4 - 1 / 5), abs(b @ a @ a @ a @ c - 1 / 120)) > 1e-4


@each_fourth_order
def test_the_conditions_of_order_four_for_costates(method):
    """Those that W. W. Hager (2000), table 1, adds for problems of optimal control."""
    a, b, c = whole(method)
    d = b @ a
    found = [np.sum(d**2 / b), c @ (d**2 / b), np.sum(d**3 / b**2), (b * c) @ a @ (d / b), d @ a @ (d / b)]
    np.testing.assert_allclose(found, [1 / 3, 1 / 12, 1 / 4, 5 / 24, 1 / 8], rtol=1e-14)


@each_fourth_order
def test_the_embedded_method_is_of_second_order(method):
    tableau = method.tableau
    weights, nodes = tableau.b_sol - tableau.b_error, np.concatenate([[0.0], tableau.c])
    assert np.any(tableau.b_error)
    for power in (0, 1, 2):
        np.testing.assert_allclose(weights @ nodes**power, 1 / (power + 1), atol=1e-15)
