"""The encoder that returns zeros."""

import jax.numpy as jnp
import numpy as np

from wgf.encoders import Zero

DIM, LENGTH, WIDTH, BATCH = 4, 5, 6, 3


def test_zero_returns_zeros(key):
    tokens = jnp.ones((BATCH, DIM, LENGTH))
    assert Zero().sample(key, (3,)) == ()
    assert Zero().reflect(()) == ()
    np.testing.assert_array_equal(Zero()((), tokens[0]), np.zeros((DIM, LENGTH)))
    np.testing.assert_array_equal(Zero().mean((), jnp.ones(3), tokens), np.zeros(tokens.shape))
