"""Slots for particles change no law; their removal keeps every particle that has a mass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix

import wgf
from wgf.analysis._slots import with_slots, without_slots
from wgf.measures import Layered


@pytest.mark.parametrize("count", [0, 3, 9])
def test_slots_come_and_go_without_a_trace(count):
    law = wgf.measures.Gaussian(Matrix(2), 0.5)
    model = wgf.Transformer(Matrix(2), law.layered(3, 4, jax.random.key(0)))
    wide = with_slots(model, count)
    wide.check()
    assert wide.measure.weights.shape == (3, 4 + count)
    tokens = jax.random.normal(jax.random.key(1), (5, 2, 3))
    np.testing.assert_allclose(wide(tokens), model(tokens), rtol=1e-6)
    narrow = without_slots(wide)
    np.testing.assert_array_equal(narrow.measure.particles, model.measure.particles)
    np.testing.assert_array_equal(narrow.measure.weights, model.measure.weights)


def test_the_depth_with_most_particles_sets_the_width():
    weights = jnp.array([[0.0, 0.5, 0.0, 0.5], [1.0, 0.0, 0.0, 0.0]])
    model = wgf.Transformer(Matrix(1), Layered(jnp.arange(8.0).reshape(2, 4, 1, 1), weights=weights))
    narrow = without_slots(model).measure
    np.testing.assert_array_equal(narrow.weights, [[0.5, 0.5], [1, 0]])
    np.testing.assert_array_equal(narrow.particles[..., 0, 0], [[1, 3], [4, 5]])
