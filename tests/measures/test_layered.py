"""The layered measure: which layer holds a depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

from wgf.measures import Layered


@pytest.mark.parametrize("layers", [1, 3, 10, 49])
def test_a_layer_holds_from_its_depth_until_just_below_the_next(layers):
    measure = Layered(np.arange(layers, dtype=float)[:, None])
    starts = np.arange(layers) / layers
    np.testing.assert_array_equal(measure.layer(starts), np.arange(layers))
    np.testing.assert_array_equal(measure.layer(starts + (1 - bound(1e-9, 1e-4)) / layers), np.arange(layers))


@pytest.mark.parametrize("layers", [3, 10, 49])
def test_layers_of_a_float32_measure_begin_at_their_depths(layers):
    measure = Layered(np.arange(layers, dtype=np.float32)[:, None])
    np.testing.assert_array_equal(measure.layer(measure.depths), np.arange(layers))


def test_at_gives_the_particles_and_weights_of_the_layer(key):
    particles, weights = (
        jax.random.normal(key, (4, 2, 3)),
        jnp.array([[0.1, 0.9], [0.5, 0.5], [0.0, 1.0], [0.3, 0.7]]),
    )
    measure = Layered(particles, weights)
    for t, layer in ((0.0, 0), (0.2499, 0), (0.25, 1), (0.6, 2), (0.75, 3), (1.0, 3)):
        found, law = measure.at(t)
        np.testing.assert_array_equal(found, particles[layer], err_msg=f"t = {t}")
        np.testing.assert_array_equal(law, weights[layer], err_msg=f"t = {t}")


def test_layers_have_equal_depth_weights():
    measure = Layered(jnp.zeros((5, 2)))
    np.testing.assert_allclose(measure.depth_weights, 0.2, rtol=bound(1e-15, 2e-6))
    np.testing.assert_allclose(measure.depths, np.arange(5) / 5, rtol=bound(1e-15, 2e-6))
