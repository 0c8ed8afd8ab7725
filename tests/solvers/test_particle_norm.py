"""The norm of step size control: the worst particle that has mass."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import bound

from wgf.solvers import ParticleNorm

NORM = ParticleNorm(jnp.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))


def test_it_is_the_root_mean_square_of_the_worst_particle():
    keys = jax.random.split(jax.random.key(0))
    particles = {"a": jax.random.normal(keys[0], (2, 3, 2, 2)), "b": jax.random.normal(keys[1], (2, 3))}
    vectors = np.concatenate([np.asarray(particles["a"]).reshape(2, 3, 4), np.asarray(particles["b"])[..., None]], -1)
    sizes = np.sqrt(np.mean(vectors**2, axis=-1))
    np.testing.assert_allclose(NORM(particles), max(sizes[0, 0], sizes[0, 1], sizes[1, 0]), rtol=bound(1e-14, 1e-6))


def test_particles_without_mass_stay_out():
    particles = jnp.ones((2, 3, 4)).at[0, 2].set(1e9).at[1, 1].set(jnp.nan)
    assert NORM([particles]) == 1


def test_its_derivative_at_zero_is_a_number():
    np.testing.assert_array_equal(jax.grad(NORM)(jnp.zeros((2, 3, 4))), 0)
