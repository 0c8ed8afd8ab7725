"""`train` with the optimisers that need more than a gradient: a value, its derivative, the function itself."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Matrix, bound, regression, relative

import wgf
from wgf.flows._optimiser_update import update
from wgf.flows._velocity import evaluate, geometry_of

OPTIMISERS = {
    "lbfgs": optax.lbfgs(),
    "polyak": optax.polyak_sgd(),
    "plateau": optax.chain(optax.sgd(0.3), optax.contrib.reduce_on_plateau()),
    "backtracking": optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(20)),
    "backtracking with gradients": optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(20, store_grad=True)
    ),
    "zoom": optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(20)),
    "schedule-free": optax.contrib.schedule_free_sgd(0.3),
    "momo": optax.contrib.momo(0.3),
    # One that takes neither a value nor arguments by any name.
    "sam": optax.contrib.sam(optax.sgd(0.3), optax.sgd(0.05)),
}


@pytest.fixture(scope="module")
def objective():
    return wgf.Objective(regression(jax.random.key(1)), 1e-2)


def models(objective):
    encoder = Matrix(objective.prompts.token_dim)
    law, key = wgf.measures.Gaussian(encoder, 0.3), jax.random.key(0)
    uneven = jnp.array([[0.5, 0.3, 0.2, 0.0]] * 2)
    finite = wgf.Transformer(encoder, law.layered(2, 4, key))
    return {
        "equal masses": finite,
        "other masses": eqx.tree_at(lambda m: m.measure.weights, finite, uneven),
        "nodes": wgf.AveragedODE(encoder, law.spectral(3, 2, key), steps=2),
    }


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_lowers_the_objective(name, objective):
    trained = wgf.train(objective, models(objective)["equal masses"], OPTIMISERS[name], steps=12)
    assert trained.objective[-1] < 0.8 * trained.objective[0], trained.objective


@pytest.mark.parametrize("name", ["other masses", "nodes"])
def test_line_searches_work_for_any_masses(name, objective):
    trained = wgf.train(objective, models(objective)[name], optax.lbfgs(), steps=12, save_every=4)
    assert jnp.all(jnp.diff(trained.objective) < 0), trained.objective
    assert trained.objective[-1] < bound(0.6, 0.7) * trained.objective[0], trained.objective


@pytest.mark.parametrize("name", ["backtracking", "backtracking with gradients", "zoom", "polyak"])
def test_float32_particles_stay_float32(name, objective):
    single = jax.tree.map(
        lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, (objective, models(objective))
    )
    trained = wgf.train(single[0], single[1]["equal masses"], OPTIMISERS[name], steps=4)
    assert trained.models.measure.particles.dtype == trained.objective.dtype == jnp.float32
    assert trained.objective[-1] < trained.objective[0]


def given(objective, model):
    """What an optimiser is given: its gradient and parameters, and `value`, `grad` and `value_fn`."""
    seen = {}

    def keep(updates, state, parameters, **extra):
        seen.update(extra, updates=updates, parameters=parameters)
        return updates, state

    geometry = geometry_of(model)
    optimiser = optax.GradientTransformationExtraArgs(lambda _: (), keep)
    update(optimiser, (), geometry, objective, model, evaluate(geometry, objective, model))
    return seen


@pytest.mark.parametrize("name", ["equal masses", "other masses", "nodes"])
def test_the_slope_that_a_line_search_is_given_is_that_of_its_values(name, objective):
    seen = given(objective, models(objective)[name])
    direction = jax.tree.map(lambda leaf: jnp.sin(jnp.arange(leaf.size)).reshape(leaf.shape), seen["parameters"])

    def value(step):
        return seen["value_fn"](optax.tree.add_scale(seen["parameters"], step, direction))

    slope = optax.tree.vdot(direction, seen["grad"])
    length = bound(1e-5, 3e-3)
    np.testing.assert_allclose((value(length) - value(-length)) / (2 * length), slope, rtol=bound(1e-7, 5e-3))
    np.testing.assert_allclose(seen["value"], value(0), rtol=bound(1e-13, 1e-6))


def test_the_derivative_is_the_mean_field_gradient_where_masses_are_equal(objective):
    """Then a step length means the same to a line search as to `optax.sgd`."""
    seen = given(objective, models(objective)["equal masses"])
    assert relative(seen["grad"], seen["updates"]) < bound(1e-14, 1e-6)


class Quadratic(eqx.Module):
    curvature: jax.Array

    def __call__(self, model):
        return jnp.sum(self.curvature * (model - 1) ** 2) / 2


def test_lbfgs_solves_a_quadratic_problem_in_a_few_steps():
    """Condition number 100, where gradient descent takes hundreds."""
    quadratic = Quadratic(jnp.array([1.0, 10.0, 100.0]))
    trained = wgf.train(quadratic, jnp.array([2.0, -1.0, 0.5]), optax.lbfgs(), steps=20)
    assert trained.objective[-1] < 1e-12 * trained.objective[0], trained.objective
    np.testing.assert_allclose(trained.models[-1], 1, atol=1e-6)


class Draws(eqx.Module):
    """E (x − data)²/2, of which a minibatch knows one."""

    data: jax.Array

    def __call__(self, x):
        return jnp.mean((x - self.data) ** 2) / 2

    def minibatch(self, key, size):
        return Draws(jax.random.choice(key, self.data, (size,)))


def test_the_value_is_that_of_the_minibatch(key):
    """Polyak's step is half way to the one datum drawn; by the value of all data it would be another."""
    draws = Draws(jnp.array([-1.0, 0.0, 4.0]))
    trained = wgf.train(draws, jnp.array(6.0), optax.polyak_sgd(), steps=1, batch=1, key=key)
    assert jnp.min(jnp.abs(trained.models[-1] - (6 + draws.data) / 2)) < bound(1e-12, 1e-6), trained.models
