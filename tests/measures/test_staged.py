import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, bound, float64_only, regression, relative
from jax.flatten_util import ravel_pytree
from scipy.optimize import approx_fprime

import wgf
from wgf.encoders import Perceptron
from wgf.measures import (
    AbstractInitialLaw,
    EqualEighths,
    Gaussian,
    Independent,
    SignPairs,
    Sobol,
    Spectral,
    Staged,
    ThreeEighths,
)
from wgf.measures._sampling import particle_space
from wgf.measures._staged import stage_nodes

METHODS = [(EqualEighths(), 1), (ThreeEighths(), 2), (diffrax.Bosh3(), 1), (diffrax.Ralston(), 3), (diffrax.Heun(), 2)]
each_method = pytest.mark.parametrize(("solver", "steps"), METHODS, ids=lambda x: type(x).__name__ + str(x))


def staged(key, solver, steps, width=4):
    """A problem, and a model of independent samples at the stage times."""
    prompts = regression(key, batch=2, examples=2, dim=1)
    encoder = averaged(prompts.token_dim, key_dim=1)
    measure = Gaussian(encoder, 0.8).staged(width, key, solver=solver, steps=steps)
    return wgf.Objective(prompts, weight_decay=1e-2), wgf.AveragedODE(encoder, measure)


@pytest.mark.parametrize(
    ("solver", "steps", "times", "weights"),
    [
        (EqualEighths(), 1, np.array([0, 4, 5, 7, 8, 10, 11, 15]) / 15, [1 / 8] * 8),
        (ThreeEighths(), 1, [0, 1 / 3, 2 / 3, 1], [1 / 8, 3 / 8, 3 / 8, 1 / 8]),
        (diffrax.Bosh3(), 1, [0, 1 / 2, 3 / 4], [2 / 9, 3 / 9, 4 / 9]),
        (diffrax.Ralston(), 2, [0, 1 / 3, 1 / 2, 5 / 6], [1 / 8, 3 / 8, 1 / 8, 3 / 8]),
        (diffrax.Heun(), 2, [0, 1 / 2, 1], [1 / 4, 1 / 2, 1 / 4]),
    ],
    ids=["equal eighths", "three eighths", "bosh3", "ralston", "heun, whose ends share a node"],
)
def test_nodes_by_hand(solver, steps, times, weights):
    measure = Staged(jnp.ones((len(times), 2, 3)), solver=solver, steps=steps)
    np.testing.assert_allclose(measure.depths, times, atol=1e-12)
    np.testing.assert_allclose(measure.depth_weights, weights, atol=1e-14)


@each_method
def test_at_a_stage_time_is_exactly_that_nodes_sample(solver, steps, key):
    measure = staged(key, solver, steps)[1].measure
    for node, depth in enumerate(np.asarray(measure.depths)):
        for nearby in (depth, depth + 1e-7, depth - 1e-7):
            particles, weights = measure.at(nearby)
            np.testing.assert_array_equal(particles.f.value, measure.particles.f.value[node])
            np.testing.assert_array_equal(weights, measure.weights[node])


def test_the_model_is_the_three_eighths_rule_by_hand(key):
    objective, model = staged(key, ThreeEighths(), 1)

    def slope(node, tokens):
        law = jax.tree.map(lambda leaf: leaf[node], model.measure.particles)
        return model.encoder.mean(law, model.measure.weights[node], tokens)

    tokens = objective.prompts.tokens
    a = slope(0, tokens)
    b = slope(1, tokens + a / 3)
    c = slope(2, tokens - a / 3 + b)
    d = slope(3, tokens + a - b + c)
    np.testing.assert_allclose(model(tokens), tokens + (a + 3 * b + 3 * c + d) / 8, atol=bound(1e-14, 2e-6))


@pytest.mark.parametrize(
    ("method", "factor"),
    [(EqualEighths(), 1), (ThreeEighths(), 5 / 4), (diffrax.Bosh3(), 29 / 27)],
    ids=lambda x: type(x).__name__,
)
def test_the_variance_of_a_mean_is_that_of_the_weights(method, factor):
    encoder = Perceptron(2, jnp.tanh)
    law = Gaussian(encoder, 0.8)

    @jax.vmap
    def mean(key):
        measure = law.staged(6, key, solver=method)
        return jnp.einsum("i,ij,ijd->d", measure.depth_weights, measure.weights, measure.particles.w_in)

    means = mean(jax.random.split(jax.random.key(0), 10_000))
    count = 6 * len(stage_nodes(method, 1)[0])
    # Two coordinates of 10,000 draws: the standard error is 1 %.
    np.testing.assert_allclose(jnp.mean(means**2) * count / 0.8**2, factor, rtol=0.04)


@float64_only
def test_the_velocity_is_minus_the_gradient_over_the_mass(key):
    objective, model = staged(key, ThreeEighths(), 1, width=2)
    weights = jnp.array([[0.3, 0.7], [0.5, 0.5], [0.9, 0.1], [0.25, 0.75]])
    measure = Staged(model.measure.particles, weights, solver=ThreeEighths())
    flat, unravel = ravel_pytree(measure.particles)

    @jax.jit
    def value(flat):
        return objective(wgf.AveragedODE(model.encoder, measure.with_particles(unravel(flat))))

    gradient = unravel(jnp.asarray(approx_fprime(np.asarray(flat), value, 1e-7)))
    masses = measure.depth_weights[:, None] * weights
    expected = jax.tree.map(lambda leaf: -leaf / masses.reshape(4, 2, *[1] * (leaf.ndim - 2)), gradient)
    assert relative(wgf.velocity(objective, wgf.AveragedODE(model.encoder, measure)), expected) < 1e-5


def test_the_objective_falls_by_what_is_dissipated(key):
    objective, model = staged(key, EqualEighths(), 1)
    solution = wgf.flow(objective, model, jnp.array([0.0, 1.0, 3.0]), rtol=bound(1e-8, 1e-6), atol=bound(1e-10, 1e-8))
    fall = solution.objective[0] - solution.objective
    np.testing.assert_allclose(fall, solution.dissipated, atol=bound(1e-6, 1e-5) * float(fall[-1]))
    assert fall[2] > fall[1] > 0


def test_samples_of_different_nodes_are_different_draws(key):
    particles = Gaussian(averaged(2)).staged(3, key).particles
    values = np.asarray(particles.f.value)
    assert len({float(v) for v in values[..., 0, 0].ravel()}) == 24


class Numbered(AbstractInitialLaw):
    """Particles that are their own numbers in the sample."""

    def sample(self, key, width):
        return jnp.arange(width, dtype=float)


def test_a_joint_sample_is_dealt_out_in_runs(key):
    encoder = averaged(2)
    dealt = Gaussian(encoder, 1.0, SignPairs(Sobol())).staged(4, key, joint=True).particles
    np.testing.assert_array_equal(dealt.f.value[:, 1::2], -dealt.f.value[:, ::2])
    np.testing.assert_array_equal(Numbered().staged(4, key, joint=True).particles, jnp.arange(32.0).reshape(8, 4))


def test_one_particle_a_node_is_allowed(key):
    assert Gaussian(averaged(2), 1.0, Independent()).staged(1, key).width == 1
    assert particle_space(averaged(2))[0] > 1


@pytest.mark.parametrize(
    "solver", [diffrax.Tsit5(), diffrax.Midpoint(), diffrax.Dopri5()], ids=lambda s: type(s).__name__
)
def test_methods_with_weights_of_zero_or_below_are_refused(solver, key):
    name = type(solver).__name__
    with pytest.raises(ValueError, match=f"`solver` must give every stage time a positive weight.*; got {name}"):
        Gaussian(averaged(2)).staged(2, key, solver=solver)


def test_methods_that_are_not_explicit_runge_kutta_are_refused(unchecked):
    with pytest.raises(
        ValueError, match=r"`solver` must be an explicit Runge–Kutta method of Diffrax, .*; got Kvaerno3"
    ):
        Staged(jnp.ones((4, 1, 1)), solver=diffrax.Kvaerno3())


def test_another_number_of_nodes_is_refused():
    with pytest.raises(
        ValueError, match="`particles` must have 8 nodes, the stage times of 1 steps of EqualEighths; got 3"
    ):
        Staged(jnp.ones((3, 1, 1)))


def test_steps_below_one_are_refused():
    with pytest.raises(ValueError, match="`steps` must be a whole number of at least 1; got 0"):
        Staged(jnp.ones((4, 1, 1)), steps=0)


@pytest.mark.parametrize(
    "options",
    [{"steps": 2}, {"solver": diffrax.Tsit5()}, {"controller": diffrax.PIDController(1e-3, 1e-6)}],
    ids=["steps", "solver", "controller"],
)
def test_a_model_of_another_depth_solve_is_refused(options, key):
    measure = Gaussian(averaged(2)).staged(2, key)
    with pytest.raises(ValueError, match="`measure` is staged for 1 constant steps of EqualEighths"):
        wgf.AveragedODE(averaged(2), measure, **options)


@pytest.mark.slow
def test_one_sample_at_all_nodes_flows_as_the_spectral_measure_does(key):
    prompts = regression(key, batch=2, examples=2, dim=1)
    encoder = Perceptron(prompts.token_dim, jnp.tanh)
    objective = wgf.Objective(prompts, weight_decay=1e-2)
    sample = Gaussian(encoder, 0.8).sample(key, 8)
    at_nodes, at_gauss = (jax.tree.map(lambda x, n=n: jnp.broadcast_to(x, (n, *x.shape)), sample) for n in (7, 4))
    models = (
        wgf.AveragedODE(encoder, Staged(at_nodes, solver=ThreeEighths(), steps=2)),
        wgf.AveragedODE(encoder, Spectral(at_gauss)),
    )
    staged, spectral = (wgf.flow(objective, m, jnp.array([0.0, 2.0]), rtol=1e-6, atol=1e-9).outputs for m in models)
    np.testing.assert_allclose(staged, spectral, atol=2e-5)
    assert jnp.max(jnp.abs(staged[1] - staged[0])) > 1e-2


def test_the_objective_of_staged_particles_has_a_gradient_under_jit(key):
    prompts = regression(key, batch=2, examples=2, dim=1)
    encoder = Perceptron(prompts.token_dim, jnp.tanh)
    objective = wgf.Objective(prompts, weight_decay=1e-2)

    def value(scale):
        return objective(wgf.AveragedODE(encoder, Gaussian(encoder, scale).staged(4, key)))

    compiled = jax.jit(value)
    slope = jax.jit(jax.grad(value))(0.8)
    step = bound(1e-5, 1e-2)
    difference = (compiled(0.8 + step) - compiled(0.8 - step)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=bound(1e-7, 1e-3))


def test_dtype_follows_the_particles():
    measure = Staged(jnp.ones((8, 2, 3), jnp.float32))
    particles, weights = measure.at(jnp.float32(0.3))
    assert {x.dtype for x in (measure.depths, measure.depth_weights, particles, weights)} == {jnp.dtype("float32")}
