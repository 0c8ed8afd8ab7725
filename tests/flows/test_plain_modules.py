"""`flow` and `train` on any Equinox module with any function of it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Matrix, bound, regression

import wgf

TAUS = jnp.array([0.0, 0.5, 1.5, 4.0])


class Bowl(eqx.Module):
    """½ Σ_k c_k x_k² + ½ (y − x₀)²: the flow is a matrix exponential."""

    curvature: jax.Array

    def __call__(self, model):
        x, y = model.x, model.nested["y"]
        return jnp.sum(self.curvature * x**2) / 2 + (y - x[0]) ** 2 / 2


class Point(eqx.Module):
    x: jax.Array
    nested: dict
    power: int
    activation: object = jnp.tanh


@pytest.fixture(scope="module")
def bowl():
    return Bowl(jnp.array([0.5, 2.0, 3.0]))


@pytest.fixture(scope="module")
def point():
    return Point(jnp.array([1.0, -1.0, 2.0]), {"y": jnp.array(0.3), "count": jnp.arange(3)}, power=2)


@pytest.fixture(scope="module")
def solved(bowl, point):
    return wgf.flow(bowl, point, TAUS, rtol=bound(1e-9, 1e-6), atol=bound(1e-11, 1e-8))


def exact(bowl, tau):
    """The solution of the linear ODE d(x, y)/dτ = −A (x, y) by its eigenvectors."""
    a = np.diag([*np.asarray(bowl.curvature), 0.0])
    a[0, 0] += 1
    a[3, 3] += 1
    a[0, 3] = a[3, 0] = -1
    values, vectors = np.linalg.eigh(a)
    return vectors @ (np.exp(-tau * values) * (vectors.T @ np.array([1.0, -1.0, 2.0, 0.3])))


def test_a_module_flows_as_its_matrix_exponential(bowl, solved):
    for i, tau in enumerate(TAUS):
        model = solved.model_at(i)
        np.testing.assert_allclose([*model.x, model.nested["y"]], exact(bowl, float(tau)), atol=bound(1e-7, 1e-4))


def test_what_is_no_real_array_stays(point, solved):
    last = solved.model_at(-1)
    assert last.power == 2
    assert last.activation is jnp.tanh
    np.testing.assert_array_equal(last.nested["count"], point.nested["count"])


def test_the_objective_falls_by_what_is_dissipated(solved):
    drop = solved.objective[0] - solved.objective
    np.testing.assert_allclose(solved.dissipated, drop, atol=bound(1e-8, 1e-5))
    assert jnp.all(jnp.diff(solved.objective) < 0)
    gradient = jax.grad(lambda x: (0.5 * x[0] ** 2 + 2 * x[1] ** 2 + 3 * x[2] ** 2 + (x[3] - x[0]) ** 2) / 2)
    at_start = gradient(jnp.array([1.0, -1.0, 2.0, 0.3]))
    np.testing.assert_allclose(solved.dissipation[0], jnp.sum(at_start**2), rtol=bound(1e-12, 1e-5))


def test_a_plain_function_has_no_prompts_and_is_all_risk(solved):
    assert solved.outputs.shape == (4, 0)
    assert solved.prompt_weights.shape == (0,)
    np.testing.assert_array_equal(solved.risk, solved.objective)


def test_velocity_is_minus_the_gradient(bowl, point):
    expected = eqx.filter_grad(bowl)(point)
    np.testing.assert_allclose(wgf.velocity(bowl, point).x, -expected.x, rtol=bound(1e-14, 1e-6))


def test_training_is_the_optimiser_on_the_gradient(bowl, point):
    trained = wgf.train(bowl, point, optax.adam(0.1), steps=3)
    parameters, optimiser = eqx.filter(point, eqx.is_inexact_array), optax.adam(0.1)
    state = optimiser.init(parameters)
    for _ in range(3):
        updates, state = optimiser.update(eqx.filter_grad(bowl)(eqx.combine(parameters, point)), state, parameters)
        parameters = eqx.apply_updates(parameters, updates)
    np.testing.assert_allclose(trained.model_at(-1).x, parameters.x, rtol=bound(1e-12, 1e-5))
    np.testing.assert_allclose(trained.objective[-1], bowl(eqx.combine(parameters, point)), rtol=bound(1e-12, 1e-5))


def test_a_float32_module_stays_float32(bowl, point):
    single = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, (bowl, point))
    solved = wgf.flow(*single, TAUS)
    assert solved.objective.dtype == solved.models.x.dtype == solved.taus.dtype == jnp.float32


class NoisyBowl(eqx.Module):
    """An objective that draws its own minibatches: E (x − data)²/2."""

    data: jax.Array

    def __call__(self, x):
        return jnp.mean((x - self.data) ** 2) / 2

    def minibatch(self, key, size):
        return NoisyBowl(jax.random.choice(key, self.data, (size,)))


def test_an_objective_of_its_own_minibatches_trains_on_them(key):
    noisy = NoisyBowl(jnp.array([-1.0, 0.0, 4.0]))
    step = optax.sgd(lambda count: 1 / (count + 1.0))
    run = jax.vmap(lambda k: wgf.train(noisy, jnp.array(5.0), step, steps=100, batch=1, key=k, throw=False).models[-1])
    ends = run(jax.random.split(key, 200))
    # With steps 1/n the end is the mean of the 100 data drawn: mean 1, standard deviation 0.216 (data's 2.160 / 10).
    assert abs(ends.mean() - 1) < 4 * 0.216 / 200**0.5
    assert 0.17 < ends.std() < 0.27


def test_an_objective_without_minibatches_is_refused(bowl, point, key):
    with pytest.raises(ValueError, match="`objective` must have a method `minibatch"):
        wgf.train(bowl, point, optax.sgd(0.1), steps=1, batch=2, key=key)


def test_a_module_with_nothing_to_move_is_refused(bowl):
    with pytest.raises(ValueError, match="`model` must hold at least one array of real or complex numbers to move"):
        wgf.flow(bowl, jnp.arange(3), TAUS)


def test_tracers_need_a_first_variation(key):
    prompts = regression(key)
    encoder = Matrix(prompts.token_dim)
    law = wgf.measures.Gaussian(encoder, 0.5)
    finite = wgf.Transformer(encoder, law.layered(2, 3, key))
    limit = wgf.AveragedODE(encoder, law.spectral(2, 4, key)).with_tracers(finite)
    with pytest.raises(ValueError, match=r"`objective` must be a wgf\.Objective for a model with tracers"):
        wgf.flow(lambda model: model.measure.second_moment(), limit, TAUS)


def test_a_measure_under_any_function_moves_by_its_mean_field_velocity(key):
    """Under half the second moment every particle decays as e^(−τ), whatever its mass."""
    prompts = regression(key)
    encoder = Matrix(prompts.token_dim)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.5).layered(2, 3, key))
    solved = wgf.flow(
        lambda model: model.measure.second_moment() / 2, model, TAUS, rtol=bound(1e-9, 1e-6), atol=bound(1e-11, 1e-8)
    )
    expected = jnp.exp(-TAUS)[:, None, None, None, None] * model.measure.particles[None]
    np.testing.assert_allclose(solved.models.measure.particles, expected, atol=bound(1e-7, 1e-6))
