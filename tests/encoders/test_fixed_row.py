"""An encoder that leaves a row of the tokens as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

import wgf
from wgf.encoders import Average, FixedRow, Perceptron, SoftmaxAttention, plain_mean


def test_its_row_stays_constant_in_depth_and_the_others_do_not(key):
    encoder = FixedRow(Average(SoftmaxAttention(4, key_dim=2), Perceptron(4, jnp.tanh)), row=1)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(3, 4, key))
    tokens = jax.random.normal(key, (2, 4, 5))
    out = model(tokens)
    np.testing.assert_array_equal(out[:, 1], tokens[:, 1])
    assert np.all(np.abs(out[:, 0] - tokens[:, 0]) > 0)


def test_its_fused_mean_is_the_plain_one(key):
    encoder = FixedRow(SoftmaxAttention(4, key_dim=2), row=3)
    particles, weights = encoder.sample(key, (6,)), jax.random.dirichlet(key, jnp.ones(6))
    tokens = jax.random.normal(key, (2, 4, 5))
    np.testing.assert_allclose(
        encoder.mean(particles, weights, tokens),
        plain_mean(encoder, particles, weights, tokens),
        atol=bound(1e-12, 1e-5),
    )


def test_it_is_odd_if_the_inner_encoder_is(key):
    encoder = FixedRow(SoftmaxAttention(4, key_dim=2), row=0)
    assert encoder.is_odd
    head, tokens = encoder.sample(key, ()), jax.random.normal(key, (4, 3))
    np.testing.assert_array_equal(encoder(encoder.reflect(head), tokens), -encoder(head, tokens))


def test_tokens_without_the_row_are_refused(key):
    encoder = FixedRow(Perceptron(4), row=4)
    with pytest.raises(ValueError, match="`row` must be a row of the tokens, 0 to 3; got 4"):
        encoder(encoder.sample(key, ()), jnp.ones((4, 3)))
