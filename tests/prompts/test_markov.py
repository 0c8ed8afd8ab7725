"""Markov chains against closed forms, exact arithmetic and counts."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, random_chain
from scipy import stats

from wgf.prompts import MarkovChain, symbol_tokens


def by_hand(chain):
    """Stationary law, entropy rate and entropy by iterating the chain over whole contexts, in plain NumPy."""
    transition, order, states = np.asarray(chain.transition), chain.order, chain.states
    law = {context: states**-order for context in itertools.product(range(states), repeat=order)}
    for _ in range(2000):
        new = dict.fromkeys(law, 0.0)
        for context, mass in law.items():
            for symbol in range(states):
                new[(*context[1:], symbol)] += mass * transition[(*context, symbol)]
        law = new
    rate = sum(m * stats.entropy(transition[context]) for context, m in law.items())
    marginal = [sum(m for context, m in law.items() if context[0] == symbol) for symbol in range(states)]
    return law, rate, marginal


@pytest.mark.parametrize(("states", "order"), [(2, 3), (3, 2), (5, 1)])
def test_stationary_law_and_entropies_are_those_by_hand(states, order):
    chain = random_chain(states + order, states, order)
    law, rate, marginal = by_hand(chain)
    stationary = chain.stationary()
    for context, mass in law.items():
        np.testing.assert_allclose(stationary[context], mass, atol=bound(1e-12, 2e-6))
    np.testing.assert_allclose(chain.marginal(), marginal, atol=bound(1e-12, 2e-6))
    np.testing.assert_allclose(chain.entropy_rate(), rate, rtol=bound(1e-12, 2e-6))
    np.testing.assert_allclose(chain.entropy(), stats.entropy(marginal), rtol=bound(1e-12, 2e-6))


@pytest.mark.parametrize(("p", "q"), [(0.2, 0.5), (1.0, 0.3), (1.0, 1.0)])
def test_the_binary_chain_has_its_closed_forms(p, q):
    chain = MarkovChain.binary(p, q)
    binary = lambda x: stats.entropy([x, 1 - x])  # noqa: E731
    np.testing.assert_allclose(chain.transition, [[1 - p, p], [q, 1 - q]], atol=bound(1e-16, 2e-6))
    np.testing.assert_allclose(chain.marginal(), [q / (p + q), p / (p + q)], rtol=bound(1e-13, 2e-6))
    np.testing.assert_allclose(
        chain.entropy_rate(),
        (q * binary(p) + p * binary(q)) / (p + q),
        rtol=bound(1e-13, 2e-6),
        atol=bound(1e-15, 2e-6),
    )


@pytest.mark.parametrize(("states", "order"), [(3, 2), (2, 3)])
def test_samples_have_the_frequencies_of_the_chain(states, order, key):
    """Counts of k + 1 consecutive symbols, at the start and at the end of a sequence, by a chi-squared test."""
    chain = random_chain(7, states, order)
    symbols = np.asarray(jax.jit(lambda key: chain.sample(key, 20_000, 2 * order + 6))(key))
    expected = np.array(chain.stationary()[..., None] * chain.transition, float).ravel()
    expected *= 20_000 / expected.sum()
    for window in (symbols[:, : order + 1], symbols[:, -order - 1 :]):
        codes = window @ states ** np.arange(order, -1, -1)
        counts = np.bincount(codes, minlength=states ** (order + 1))
        assert stats.chisquare(counts, expected).pvalue > 1e-3, (counts, expected)


def test_sequences_may_be_shorter_than_the_context(key):
    assert random_chain(0, 2, 3).sample(key, 5, 2).shape == (5, 2)


def test_a_certain_chain_alternates(key):
    symbols = np.asarray(MarkovChain.binary(1.0, 1.0).sample(key, 50, 9))
    assert np.all(np.diff(symbols, axis=1) != 0)
    assert 0 < symbols[:, 0].mean() < 1


def test_next_laws_are_the_rows_of_the_contexts(key):
    chain = random_chain(3, 3, 2)
    symbols = chain.sample(key, 2, 5)
    laws = chain.next_laws(symbols)
    assert laws.shape == (2, 4, 3)
    for b, n in itertools.product(range(2), range(4)):
        np.testing.assert_array_equal(laws[b, n], chain.transition[symbols[b, n], symbols[b, n + 1]])


def test_entropies_have_derivatives():
    slope = jax.grad(lambda p: MarkovChain.binary(p, 0.3).entropy_rate())(0.2)
    step = bound(1e-6, 1e-2)
    high, low = (float(MarkovChain.binary(0.2 + h, 0.3).entropy_rate()) for h in (step, -step))
    np.testing.assert_allclose(slope, (high - low) / (2 * step), rtol=bound(1e-7, 2e-3))


@pytest.mark.parametrize(
    ("transition", "message"),
    [
        (np.ones(2) / 2, r"`transition` must have k \+ 1 >= 2 axes of the same size S >= 2 .*got shape \(2,\)"),
        (np.ones((2, 3)) / 3, r"`transition` must have k \+ 1 >= 2 axes .*got shape \(2, 3\)"),
        (np.ones((1, 1)), r"`transition` must have k \+ 1 >= 2 axes .*got shape \(1, 1\)"),
        ([[0.5, 0.6], [0.5, 0.5]], "`transition` must be non-negative with sum 1 over its last axis"),
        ([[1.5, -0.5], [0.5, 0.5]], "`transition` must be non-negative with sum 1 over its last axis"),
        ([[np.nan, 0.5], [0.5, 0.5]], "`transition` must be finite"),
        (np.eye(2), "`transition` must have one stationary law; got several"),
    ],
)
def test_a_transition_that_is_none_is_refused(transition, message):
    with pytest.raises(ValueError, match=message):
        MarkovChain(np.asarray(transition))


@pytest.mark.parametrize(("p", "q", "name"), [(1.2, 0.5, "p"), (0.5, -0.1, "q")])
def test_a_probability_out_of_range_is_refused(p, q, name):
    with pytest.raises(ValueError, match=f"`{name}` must be a probability, 0 to 1; got"):
        MarkovChain.binary(p, q)


def test_a_probability_that_is_a_vector_is_refused():
    with pytest.raises(ValueError, match=r"`p` must be one number; got an array of shape \(2,\)"):
        MarkovChain.binary(np.ones(2) / 2, 0.5)


@pytest.mark.parametrize("name", ["batch", "length"])
def test_a_count_below_one_is_refused(name, key):
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number of at least 1; got 0"):
        MarkovChain.binary(0.1, 0.1).sample(key, **{"batch": 2, "length": 2, name: 0})


BAD = [([[0, 1, 3]], "0 to 3"), ([[-1, 0, 2]], "-1 to 2")]


@pytest.mark.parametrize(("symbols", "got"), BAD)
@pytest.mark.parametrize("use", ["symbol_tokens", "next_laws"])
def test_symbols_that_are_no_state_are_refused(symbols, got, use):
    chain = random_chain(0, 3, 2)
    call, name = {
        "symbol_tokens": (lambda symbols: symbol_tokens(symbols, 3), "symbols"),
        "next_laws": (chain.next_laws, "tokens"),
    }[use]
    with pytest.raises(ValueError, match=f"`{name}` must be symbols 0 to 2; got {got}"):
        call(jnp.array(symbols))
    with pytest.raises(eqx.EquinoxRuntimeError, match=f"`{name}` must be symbols 0 to 2"):
        eqx.filter_jit(call)(jnp.array(symbols))


def test_fewer_symbols_than_a_context_have_no_law():
    with pytest.raises(ValueError, match="`tokens` must hold at least 3 symbols, one context; got 2"):
        random_chain(0, 2, 3).next_laws(jnp.zeros((1, 2), int))
