"""Softmax attention against NumPy, and in its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, encoder_problem as problem, encoders
from hypothesis import given, settings, strategies as st

from wgf.encoders import Head, SoftmaxAttention

DIM, LENGTH, WIDTH, BATCH = 4, 5, 6, 3
ENCODERS = encoders(DIM)


def attention_by_hand(head, tokens):
    """Loop over queries: a softmax of the scores over the keys, then the average of the values."""
    value, key, query = (np.asarray(part) for part in head)
    out = np.zeros_like(tokens)
    for q in range(tokens.shape[1]):
        scores = np.array([(key @ tokens[:, k]) @ (query @ tokens[:, q]) for k in range(tokens.shape[1])])
        powers = np.exp(scores / np.sqrt(key.shape[0]))
        out[:, q] = sum(p * (value @ tokens[:, k]) for k, p in enumerate(powers / powers.sum()))
    return out


@settings(deadline=None, max_examples=5)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(2, 5), st.integers(0, 10**6))
def test_attention_is_that_of_numpy(dim, key_dim, length, seed):
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(dim, length))
    head = Head(*(jnp.asarray(rng.normal(size=(rows, dim))) for rows in (dim, key_dim, key_dim)))
    out = SoftmaxAttention(dim, key_dim=key_dim)(head, jnp.asarray(tokens))
    np.testing.assert_allclose(out, attention_by_hand(head, tokens), atol=bound(1e-12, 1e-5))


def test_attention_weights_of_a_query_sum_to_one(key):
    particles, _, tokens = problem(ENCODERS["attention"])
    head = jax.tree.map(lambda leaf: leaf[0], particles)._replace(value=jnp.eye(DIM))
    # Values that are constant over the keys come out as they are, whatever the scores.
    same = tokens[0].at[0].set(1.7)
    np.testing.assert_allclose(ENCODERS["attention"](head, same)[0], 1.7, rtol=bound(1e-14, 1e-6))


def test_attention_on_equal_tokens_is_the_value_matrix_alone():
    particles, _, _ = problem(ENCODERS["attention"])
    head = jax.tree.map(lambda leaf: leaf[0], particles)
    tokens = jnp.broadcast_to(jnp.arange(1.0, DIM + 1)[:, None], (DIM, LENGTH))
    np.testing.assert_allclose(ENCODERS["attention"](head, tokens), head.value @ tokens, atol=bound(1e-13, 1e-5))


def test_attention_without_scores_averages_the_tokens():
    head = Head(jnp.eye(DIM), jnp.zeros((2, DIM)), jnp.ones((2, DIM)))
    tokens = problem(ENCODERS["attention"])[2][0]
    expected = np.broadcast_to(tokens.mean(axis=1, keepdims=True), tokens.shape)
    np.testing.assert_allclose(ENCODERS["attention"](head, tokens), expected, atol=bound(1e-14, 1e-6))


def test_sharp_attention_copies_the_best_key():
    tokens = jnp.array([[1.0, 2.0, 5.0], [1.0, 1.0, 1.0]])
    head = Head(jnp.eye(2), jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 200.0]]))
    np.testing.assert_allclose(SoftmaxAttention(2, key_dim=1)(head, tokens), [[5.0] * 3, [1.0] * 3], atol=1e-12)


def test_large_scores_do_not_overflow():
    particles, weights, tokens = problem(ENCODERS["attention"])
    out = ENCODERS["attention"].mean(particles, weights, 1e3 * tokens)
    assert jnp.all(jnp.isfinite(out))


def test_a_key_dimension_below_one_is_refused():
    with pytest.raises(ValueError, match="`key_dim` must be a whole number of at least 1; got 0"):
        SoftmaxAttention(DIM, key_dim=0)
