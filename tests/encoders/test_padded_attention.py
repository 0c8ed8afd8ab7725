"""Attention on prompts of different lengths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, relative

import wgf
from wgf.encoders import Average, Causal, FixedRow, PaddedAttention, Perceptron, SoftmaxAttention

LENGTHS, DIM = (3, 5, 2), 4


@pytest.fixture
def prompts(key):
    """Prompts of three lengths."""
    keys = jax.random.split(key, len(LENGTHS))
    tokens = [jax.random.normal(k, (DIM, length)) for k, length in zip(keys, LENGTHS, strict=True)]
    return wgf.prompts.pad_prompts(tokens, jnp.array([0.3, -0.2, 0.5]), label_row=1)


def encoder_of(row, mask=None):
    return Average(
        PaddedAttention(DIM + 1, key_dim=2, row=row, mask=mask), FixedRow(Perceptron(DIM + 1, jnp.tanh), row=row)
    )


@pytest.mark.parametrize("mask", [None, Causal()])
def test_a_model_of_padded_prompts_is_that_of_each_prompt_by_itself(prompts, key, mask):
    encoder = encoder_of(DIM, mask)
    law = wgf.measures.Gaussian(encoder, 0.7)
    for model in (
        wgf.Transformer(encoder, law.layered(2, 3, key)),
        wgf.AveragedODE(encoder, law.spectral(2, 3, key), steps=2),
    ):
        out = model(prompts.tokens)
        for b, length in enumerate(LENGTHS):
            alone = model(prompts.tokens[b : b + 1, :, -length:])
            np.testing.assert_allclose(out[b, :, -length:], alone[0], rtol=bound(1e-10, 1e-4), atol=bound(1e-12, 1e-5))


def test_the_velocity_is_the_mean_of_those_of_each_prompt_by_itself(prompts, key):
    encoder = encoder_of(DIM)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(2, 3, key))
    found = wgf.velocity(wgf.Objective(prompts), model)
    alone = [
        wgf.velocity(
            wgf.Objective(
                wgf.prompts.Prompts(prompts.tokens[b : b + 1, :, -length:], prompts.labels[b : b + 1], label_row=1)
            ),
            model,
        )
        for b, length in enumerate(LENGTHS)
    ]
    assert relative(found, jax.tree.map(lambda *each: sum(each) / len(each), *alone)) < bound(1e-10, 1e-4)


def test_without_padding_it_is_softmax_attention(key):
    plain, padded = SoftmaxAttention(DIM, key_dim=2), PaddedAttention(DIM, key_dim=2, row=2)
    head = plain.sample(key, ())
    tokens = jax.random.normal(key, (DIM, 5)).at[2].set(1)
    np.testing.assert_allclose(
        padded(head, tokens), plain(head, tokens).at[2].set(0), rtol=bound(1e-12, 1e-5), atol=bound(1e-13, 1e-6)
    )


def test_a_query_that_sees_nothing_but_padding_sees_itself(key):
    encoder = PaddedAttention(DIM, key_dim=2, row=2, mask=Causal())
    tokens = jax.random.normal(key, (DIM, 4)).at[2].set(jnp.array([0.0, 0.0, 1.0, 1.0]))
    head = encoder.sample(key, ())
    expected = (head.value @ tokens)[:, :2].at[2].set(0)
    np.testing.assert_allclose(encoder(head, tokens)[:, :2], expected, rtol=bound(1e-12, 1e-5))


def test_the_reflection_flips_the_output(key):
    encoder = PaddedAttention(DIM, key_dim=2, row=0)
    head, tokens = encoder.sample(key, ()), jax.random.normal(key, (DIM, 4))
    np.testing.assert_array_equal(encoder(encoder.reflect(head), tokens), -encoder(head, tokens))


def test_the_row_must_be_one_of_the_tokens():
    with pytest.raises(ValueError, match="`row` must be a whole number of at most 3; got 4"):
        PaddedAttention(DIM, key_dim=2, row=DIM)
