"""The velocity of a model in the geometry that it has, and the problems that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, bound, regression, relative, scalar_problem

import wgf
from wgf.flows._geometry import Euclidean, FiniteVolume, Lagrangian
from wgf.flows._velocity import check_posed, geometry_of, tracers_of


@pytest.fixture(scope="module")
def objective():
    return wgf.Objective(regression(jax.random.key(0), batch=3), 0.1)


def finite(objective, weights=(0.2, 0.3, 0.5)):
    encoder = Matrix(objective.prompts.token_dim)
    particles = wgf.measures.Gaussian(encoder, 0.5).layered(2, 3, jax.random.key(1)).particles
    return wgf.Transformer(encoder, wgf.measures.Layered(particles, jnp.asarray(weights)))


def grid():
    return wgf.AveragedODE(Matrix(1), wgf.measures.Gaussian(Matrix(1), 0.5).eulerian(2, (6,), -2.0, 2.0), steps=2)


def test_a_model_moves_in_the_geometry_of_its_measure(objective):
    assert isinstance(geometry_of({"x": jnp.ones(2)}), Euclidean)
    assert isinstance(geometry_of(finite(objective)), Lagrangian)
    on_grid = geometry_of(grid(), 0.3)
    assert isinstance(on_grid, FiniteVolume)
    assert on_grid.temperature == jnp.asarray(0.3)


def test_the_velocity_is_minus_the_gradient_over_the_mass(objective):
    model = finite(objective)
    gradient = jax.grad(lambda particles: objective(model.with_particles(particles)))(model.measure.particles)
    expected = -gradient / model.measure.masses[:, :, None, None]
    assert relative(wgf.velocity(objective, model), expected) < bound(1e-12, 1e-5)


def test_the_velocity_on_a_grid_moves_mass_and_makes_none():
    rates = wgf.velocity(scalar_problem(0.1), grid())
    assert rates.shape == (2, 6)
    assert jnp.max(jnp.abs(rates)) > 0.1
    np.testing.assert_allclose(jnp.sum(rates, axis=1), 0, atol=bound(1e-14, 1e-6))


def test_a_model_without_tracers_has_no_velocities_of_them(objective):
    model = finite(objective)
    assert wgf.flows.tracer_velocity(objective, model) == ()
    assert tracers_of({"x": jnp.ones(2)}) == ()
    assert len(tracers_of(model.with_tracers(model))) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, m: (m, q), "`objective` must come before `model`"),
        (lambda q, m: (3, m), "`objective` must be a function of the model"),
        (lambda q, m: (wgf.Objective, m), "`objective` must be a function of the model"),
        (lambda q, m: (jnp.sum, jnp.arange(3)), "`model` must hold at least one array"),
        (lambda q, m: (jnp.sum, [jnp.ones(2), jnp.ones(2, jnp.bfloat16)]), "arrays of one precision to move; got"),
    ],
    ids=["swapped", "a number", "a class", "whole numbers", "two precisions"],
)
def test_what_is_no_problem_is_refused(unchecked, objective, change, message):
    with pytest.raises(ValueError, match=message):
        check_posed(*change(objective, finite(objective)))


def test_complex_particles_of_a_measure_are_refused(objective):
    model = finite(objective)
    with pytest.raises(ValueError, match=r"`model.measure` must hold particles of real numbers; got complex"):
        geometry_of(model.with_particles(model.measure.particles.astype(complex)))
