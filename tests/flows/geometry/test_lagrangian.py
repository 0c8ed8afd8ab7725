"""Particles that move by gradients divided by their masses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, averaged, bound

import wgf
from wgf.flows._geometry.lagrangian import Lagrangian
from wgf.solvers import ParticleNorm

GEOMETRY = Lagrangian()
ENCODER = averaged(3)
LAW = wgf.measures.Gaussian(ENCODER, 0.7)


def model_of(weights):
    """A Transformer of two layers of three scalar particles."""
    particles = jnp.arange(1.0, 7.0).reshape(2, 3, 1, 1)
    return wgf.Transformer(Matrix(1), wgf.measures.Layered(particles, jnp.asarray(weights)))


def spread(model):
    """½ Σ m θ² of the measure: every particle moves by −θ."""
    return model.measure.second_moment() / 2


@pytest.mark.parametrize("weights", [[0.2, 0.3, 0.5], [0.5, 0.5, 0.0]])
def test_a_gradient_is_divided_by_the_mass(weights):
    """A particle without mass gets the velocity of one of vanishing mass, and dissipates nothing."""
    model = model_of(weights)
    found = GEOMETRY.evaluate(spread, model)
    particles = np.asarray(model.measure.particles)
    np.testing.assert_allclose(found.velocity[0], -particles.reshape(2, 3, 1), rtol=bound(1e-14, 1e-6))
    dissipation = np.sum(np.asarray(weights) * particles[:, :, 0, 0] ** 2) / 2
    np.testing.assert_allclose(found.dissipation, dissipation, rtol=bound(1e-14, 1e-6))
    np.testing.assert_allclose(found.objective, dissipation / 2, rtol=bound(1e-14, 1e-6))


def test_particles_are_packed_in_one_array_and_found_again(key):
    particles = LAW.layered(2, 3, key).particles
    (packed,) = GEOMETRY.pack(particles)
    assert packed.shape == (2, 3, 3 * 3 + 2 * 2 * 3 + 3 + 3 + 1)
    again = GEOMETRY.unpack([packed], particles)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, particles))


def test_noise_is_shared_over_the_nodes_of_the_limit_alone(key):
    finite = wgf.Transformer(ENCODER, LAW.layered(2, 3, key))
    limit = wgf.AveragedODE(ENCODER, LAW.spectral(2, 3, key))
    assert {leaf.shape[:2] for leaf in jax.tree.leaves(GEOMETRY.noise(finite))} == {(2, 3)}
    assert {leaf.shape[:2] for leaf in jax.tree.leaves(GEOMETRY.noise(limit))} == {(1, 3)}


def test_the_norm_is_that_of_the_particles_with_mass():
    norm = GEOMETRY.norm(model_of([0.5, 0.5, 0.0]))
    assert isinstance(norm, ParticleNorm)
    assert norm([jnp.arange(1.0, 7.0).reshape(2, 3, 1)]) == 5
