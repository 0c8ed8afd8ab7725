"""The average of two encoders."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, bound, encoder_problem as problem, encoders

from wgf.encoders import Average, Pair, Perceptron, Zero

DIM, LENGTH, WIDTH, BATCH = 4, 5, 6, 3
ENCODERS = encoders(DIM)


def test_encoders_are_homogeneous_in_their_outer_weights():
    encoder = averaged(DIM)
    particles, weights, tokens = problem(encoder)
    scaled = Pair(particles.f._replace(value=3 * particles.f.value), particles.h._replace(w_out=3 * particles.h.w_out))
    np.testing.assert_allclose(
        encoder.mean(scaled, weights, tokens), 3 * encoder.mean(particles, weights, tokens), atol=bound(1e-12, 1e-5)
    )


def test_the_average_is_half_the_sum_of_its_halves():
    encoder = averaged(DIM)
    particles, weights, tokens = problem(encoder)
    halves = encoder.f.mean(particles.f, weights, tokens) + encoder.h.mean(particles.h, weights, tokens)
    np.testing.assert_allclose(encoder.mean(particles, weights, tokens), halves / 2, rtol=bound(1e-14, 1e-6))


def test_the_halves_of_an_average_are_drawn_independently(key):
    twin = Average(Perceptron(DIM, jnp.tanh), Perceptron(DIM, jnp.tanh)).sample(key, (500,))
    correlation = np.corrcoef(twin.f.w_in[:, 0], twin.h.w_in[:, 0])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(500), correlation


def test_an_average_of_averages_nests():
    inner = averaged(DIM)
    encoder = Average(inner, Zero())
    particles, weights, tokens = problem(encoder)
    np.testing.assert_allclose(
        encoder.mean(particles, weights, tokens), inner.mean(particles.f, weights, tokens) / 2, rtol=bound(1e-14, 1e-6)
    )


def test_an_average_with_a_half_without_reflection_refuses_to_reflect(key):
    encoder = Average(Perceptron(DIM, jnp.tanh), ENCODERS["user's own"])
    assert not encoder.is_odd
    with pytest.raises(ValueError, match=r"`encoder` must have a reflection; got Matrix"):
        encoder.reflect(encoder.sample(key, ()))
