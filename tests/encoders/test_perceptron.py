"""The perceptron against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, encoder_problem as problem

from wgf.encoders import Neuron, Perceptron

DIM, LENGTH, WIDTH, BATCH = 4, 5, 6, 3


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(("jax_name", "numpy_name"), [(jnp.tanh, np.tanh), (jnp.sin, np.sin)], ids=["tanh", "sin"])
def test_a_perceptron_is_that_of_numpy(use_bias, jax_name, numpy_name):
    encoder = Perceptron(DIM, jax_name, use_bias=use_bias)
    particles, _, tokens = problem(encoder)
    neuron, prompt = jax.tree.map(lambda leaf: leaf[1], particles), np.asarray(tokens[0])
    expected = np.zeros_like(prompt)
    for n in range(LENGTH):
        drive = np.dot(neuron.w_in, prompt[:, n]) + (float(neuron.bias) if use_bias else 0.0)
        expected[:, n] = np.asarray(neuron.w_out) * numpy_name(drive)
    np.testing.assert_allclose(encoder(neuron, tokens[0]), expected, atol=bound(1e-14, 1e-6))


def test_a_perceptron_without_bias_has_none(key):
    assert Perceptron(DIM, jnp.tanh, use_bias=False).sample(key, (2,)).bias is None


def test_a_perceptron_has_tanh_by_default(key):
    neuron = Neuron(jnp.ones(1), jnp.ones(1), jnp.zeros(()))
    np.testing.assert_allclose(
        Perceptron(1)(neuron, jnp.array([[0.5, 2.0]])), np.tanh([[0.5, 2.0]]), rtol=bound(1e-14, 1e-6)
    )


def test_an_activation_that_is_no_function_is_refused(unchecked):
    with pytest.raises(ValueError, match=r"`activation` must be a function of an array, e.g. jnp.tanh; got 'tanh'"):
        Perceptron(DIM, "tanh")
