"""The next-token loss: exact values, minibatches, and what it refuses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

from wgf.companions import CanonicalMarkov, CanonicalRisk, NextTokenLoss, OneLayerTransformer
from wgf.prompts import MarkovChain

CHAIN = MarkovChain.binary(0.9, 0.9)
# Compiled as a whole: drawing weights one by one would compile a program each.
standard, rank_one = eqx.filter_jit(OneLayerTransformer.standard), eqx.filter_jit(OneLayerTransformer.rank_one)
drawn = eqx.filter_jit(NextTokenLoss.drawn)


def test_the_loss_and_its_excess_of_the_canonical_point_are_the_exact_ones(key):
    """Of rank one at zero bias the excess is an average over the symbols: sequences of both give the population's."""
    risk = CanonicalRisk(0.9, 0.9)
    model = rank_one(key, 0.5, 1.2, length=4)
    loss = drawn(CHAIN, key, batch=4, length=4)
    gain = CanonicalMarkov(0.5, 1.2).gain
    exact = risk.loss(gain, jnp.zeros(())) - CHAIN.entropy_rate()
    np.testing.assert_allclose(eqx.filter_jit(loss.excess)(model), exact, rtol=bound(1e-10, 2e-6))
    big = drawn(CHAIN, key, batch=20_000, length=4)
    np.testing.assert_allclose(eqx.filter_jit(big)(model) - CHAIN.entropy_rate(), exact, rtol=0.02)


def test_the_excess_is_zero_at_the_truth_and_leaves_cut_contexts_out(key):
    chain = MarkovChain(np.random.default_rng(0).dirichlet([1, 1], size=(2, 2)))
    loss = drawn(chain, key, batch=3, length=6)

    def truth(symbols):
        laws = chain.next_laws(symbols)
        return jnp.pad(jnp.log(laws[..., 1] / laws[..., 0]), ((0, 0), (1, 0)), constant_values=50.0)

    np.testing.assert_allclose(eqx.filter_jit(loss.excess)(truth), 0, atol=bound(1e-14, 2e-6))


def test_minibatches_are_new_sequences_of_the_chain(key):
    loss = drawn(CHAIN, key, batch=3, length=6)
    first, second = (loss.minibatch(k, 5) for k in jax.random.split(key))
    assert first.symbols.shape == (5, 7)
    assert not np.array_equal(first.symbols, second.symbols)


def test_a_chain_of_three_states_is_refused():
    chain = MarkovChain(np.ones((3, 3)) / 3)
    with pytest.raises(ValueError, match="`chain` must have two states; got 3"):
        NextTokenLoss(chain, jnp.zeros((2, 3), int))


def test_sequences_without_a_prediction_are_refused():
    with pytest.raises(ValueError, match=r"`symbols` must have shape \[B, N \+ 1\] with N >= 1; got shape \(2, 1\)"):
        NextTokenLoss(CHAIN, jnp.zeros((2, 1), int))
