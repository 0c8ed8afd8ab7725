"""A step of the conditional gradient: which particles give mass, which receives it, and what stays."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, bound, scalar_problem

import wgf
from wgf.analysis._certificate import certificate_and_values
from wgf.analysis._transfer import least_of_support, transfer
from wgf.measures import Layered

# δQ/δρ at the four particles of two layers, and their weights.
VALUES = jnp.array([[0.0, 3.0, 2.0, -1.0], [1.0, 1.0, 0.0, 0.5]])
WEIGHTS = jnp.array([[0.4, 0.1, 0.2, 0.3], [0.25, 0.25, 0.5, 0.0]])


@pytest.fixture(scope="module")
def model():
    particles = jnp.arange(8.0).reshape(2, 4, 1, 1)
    return wgf.Transformer(Matrix(1), Layered(particles, weights=WEIGHTS))


@pytest.fixture(scope="module")
def found(model):
    """A certificate whose minimiser, −7, is far below all particles, at −5."""
    plain = wgf.analysis.certificate(scalar_problem(0.1), model, key=jax.random.key(0), starts=2, depths=[0.0, 0.5])
    mean = jnp.sum(WEIGHTS * VALUES, axis=1)
    return eqx.tree_at(
        lambda c: (c.mean, c.least, c.particles), plain, (mean, jnp.full(2, -5.0), jnp.full((2, 1, 1), -7.0))
    )


def test_mass_comes_from_the_greatest_values_and_goes_to_a_new_particle(model, found):
    after, born = transfer(model, found, VALUES, jnp.array([0.15, 0.3]))
    assert born.all()
    # Layer 0: the particle of least weight, number 1, makes room and gives its own mass with it; 0.15 comes from 2.
    np.testing.assert_allclose(after.measure.weights[0], [0.4, 0.25, 0.05, 0.3], rtol=1e-6)
    # Layer 1: number 3 is free; 0 gives all that it has, and 1 the rest.
    np.testing.assert_allclose(after.measure.weights[1], [0, 0.2, 0.5, 0.3], atol=1e-7)
    np.testing.assert_array_equal(after.measure.particles[..., 0, 0], [[0, -7, 2, 3], [4, 5, 6, -7]])


def test_a_particle_as_low_as_the_minimiser_receives_the_mass(model, found):
    low = eqx.tree_at(lambda c: c.least, found, jnp.array([-1.01, 0.0]))
    after, born = transfer(model, low, VALUES, jnp.array([0.2, 0.2]))
    assert not born.any()
    np.testing.assert_array_equal(after.measure.particles, model.measure.particles)
    np.testing.assert_allclose(after.measure.weights[0], [0.4, 0, 0.1, 0.5], atol=1e-7)
    np.testing.assert_allclose(after.measure.weights[1], [0.05, 0.25, 0.7, 0], atol=1e-7)


def test_particles_in_the_lower_half_of_the_gap_keep_their_mass(model, found):
    """A mass that is more than what lies above the half, at 0.1 and 0.3125, is cut."""
    near = eqx.tree_at(lambda c: c.least, found, jnp.array([-0.2, 0.0]))
    after, _ = transfer(model, near, VALUES.at[0, 3].set(0.0), jnp.array([0.9, 0.9]))
    np.testing.assert_allclose(after.measure.weights[0], [0.4, 0.3, 0, 0.3], atol=1e-7)
    np.testing.assert_allclose(after.measure.weights[1], [0, 0, 1, 0], atol=1e-7)


def test_of_equal_particles_all_may_give(model, found):
    after, born = transfer(model, found, jnp.zeros((2, 4)), jnp.array([0.9, 0.9]))
    assert born.all()
    np.testing.assert_allclose(after.measure.weights[1, 3], 0.9, rtol=1e-6)
    np.testing.assert_allclose(after.measure.weights.sum(axis=1), 1, rtol=1e-6)


def test_a_depth_of_no_mass_stays_as_it_is(model, found):
    after, born = transfer(model, found, VALUES, jnp.array([0.0, 0.1]))
    assert born.tolist() == [False, True]
    np.testing.assert_array_equal(after.measure.weights[0], WEIGHTS[0])
    np.testing.assert_array_equal(after.measure.particles[0], model.measure.particles[0])


def test_values_are_the_first_variation_at_each_particle(model):
    objective = scalar_problem(0.1)
    variation = objective.first_variation(model)
    expected = [
        [variation(model.measure.particles[layer, j], depth) for j in range(4)]
        for layer, depth in enumerate(model.measure.depths)
    ]
    found, values = certificate_and_values(objective, model, jax.random.key(0), [0.0, 0.5], 2, None, 200, False)
    np.testing.assert_allclose(found.mean, jnp.sum(WEIGHTS * values, axis=1), rtol=bound(1e-12, 1e-5))
    np.testing.assert_allclose(values, np.array(expected), rtol=bound(1e-12, 1e-5))
    # The particle of weight zero does not count.
    least = least_of_support(model, values)
    np.testing.assert_allclose(least, [jnp.min(values[0]), jnp.min(values[1, :3])])
