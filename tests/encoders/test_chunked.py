"""An encoder whose mean is computed in chunks is the encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, bound

from wgf.encoders import Chunked, SoftmaxAttention, plain_mean


def test_a_chunked_encoder_is_the_encoder(key):
    encoder = SoftmaxAttention(3, key_dim=2)
    chunked, head = Chunked(encoder, particles=2), encoder.sample(key, ())
    tokens = jax.random.normal(key, (3, 4))
    np.testing.assert_array_equal(chunked(head, tokens), encoder(head, tokens))
    np.testing.assert_array_equal(chunked.reflect(head).value, -head.value)
    np.testing.assert_array_equal(chunked.sample(key, ()).value, head.value)
    particles, weights = encoder.sample(key, (5,)), jnp.arange(5) / 10
    expected = plain_mean(encoder, particles, weights, tokens[None])
    np.testing.assert_allclose(
        chunked.mean(particles, weights, tokens[None]), expected, rtol=0, atol=bound(1e-12, 1e-6)
    )


@pytest.mark.parametrize("name", ["particles", "prompts"])
def test_a_chunk_of_none_is_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number of at least 1; got 0"):
        Chunked(Matrix(3), **{name: 0})


def test_an_encoder_without_reflection_has_none_in_chunks(key):
    assert not Chunked(Matrix(3)).is_odd
    with pytest.raises(ValueError, match="`encoder` must have a reflection; got Matrix"):
        Chunked(Matrix(3)).reflect(Matrix(3).sample(key, ()))
