"""Layer normalisation in front of an encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

from wgf.encoders import LayerNorm, Perceptron, SoftmaxAttention

DIM, LENGTH = 4, 6


@pytest.fixture
def tokens():
    return jax.random.normal(jax.random.key(1), (DIM, LENGTH))


def test_layer_norm_centres_and_scales_each_token(tokens):
    encoder = LayerNorm(SoftmaxAttention(DIM, key_dim=2), epsilon=1e-3)
    head = encoder.sample(jax.random.key(5), ())
    t = np.asarray(tokens)
    normalised = (t - t.mean(axis=0)) / np.sqrt(t.var(axis=0) + 1e-3)
    np.testing.assert_allclose(
        encoder(head, tokens), encoder.encoder(head, jnp.asarray(normalised)), rtol=bound(1e-10, 1e-4)
    )
    # What is normalised forgets the scale and the mean of each token, up to epsilon.
    np.testing.assert_allclose(encoder(head, 1e4 * tokens + 7), encoder(head, 1e6 * tokens), rtol=1e-5)


def test_equal_entries_stay_finite_with_finite_gradients():
    encoder = LayerNorm(Perceptron(DIM))
    neuron = encoder.sample(jax.random.key(6), ())
    gradient = jax.grad(lambda tokens: encoder(neuron, tokens).sum())(jnp.ones((DIM, LENGTH)))
    assert jnp.all(jnp.isfinite(gradient))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LayerNorm(Perceptron(2), epsilon=0.0), r"`epsilon` must be positive; got 0\.0"),
    ],
)
def test_bad_arguments_are_named(make, text):
    with pytest.raises(ValueError, match=text):
        make()
