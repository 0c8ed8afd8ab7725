"""Markov chains against closed forms, linear algebra and counts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import wgf
from wgf.prompts import MarkovChain, next_tokens, symbol_tokens


def random_chain(seed, states, order):
    return MarkovChain(np.random.default_rng(seed).dirichlet(np.ones(states), size=(states,) * order))


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
        np.testing.assert_allclose(stationary[context], mass, atol=1e-12)
    np.testing.assert_allclose(chain.marginal(), marginal, atol=1e-12)
    np.testing.assert_allclose(chain.entropy_rate(), rate, rtol=1e-12)
    np.testing.assert_allclose(chain.entropy(), stats.entropy(marginal), rtol=1e-12)


@pytest.mark.parametrize(("p", "q"), [(0.2, 0.5), (1.0, 0.3), (1.0, 1.0)])
def test_the_binary_chain_has_its_closed_forms(p, q):
    chain = MarkovChain.binary(p, q)
    binary = lambda x: stats.entropy([x, 1 - x])  # noqa: E731
    np.testing.assert_allclose(chain.transition, [[1 - p, p], [q, 1 - q]], atol=1e-16)
    np.testing.assert_allclose(chain.marginal(), [q / (p + q), p / (p + q)], rtol=1e-13)
    np.testing.assert_allclose(chain.entropy_rate(), (q * binary(p) + p * binary(q)) / (p + q), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("states", "order"), [(3, 2), (2, 3)])
def test_samples_have_the_frequencies_of_the_chain(states, order, key):
    """Counts of k + 1 consecutive symbols, at the start and at the end of a sequence, by a chi-squared test."""
    chain = random_chain(7, states, order)
    symbols = np.asarray(jax.jit(lambda key: chain.sample(key, 20_000, 2 * order + 6))(key))
    expected = 20_000 * np.asarray(chain.stationary()[..., None] * chain.transition).ravel()
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
    high, low = (float(MarkovChain.binary(0.2 + h, 0.3).entropy_rate()) for h in (1e-6, -1e-6))
    np.testing.assert_allclose(slope, (high - low) / 2e-6, rtol=1e-7)


def test_next_tokens_are_labelled_with_their_successors(key):
    chain = random_chain(1, 3, 1)
    prompts = next_tokens(key, chain, batch=4, length=6, workspace=2, positions=2)
    assert prompts.tokens.shape == (4, 3 + 2 + 2, 6)
    symbols = jnp.argmax(prompts.tokens[:, :3], axis=1)
    np.testing.assert_array_equal(prompts.labels[:, :-1], symbols[:, 1:])
    np.testing.assert_array_equal(prompts.tokens, symbol_tokens(symbols, 3, workspace=2, positions=2))
    np.testing.assert_array_equal(prompts.tokens[:, 3:5], 0)


def test_next_tokens_train_by_batches(key):
    prompts = next_tokens(key, MarkovChain.binary(0.2, 0.3), batch=6, length=4)
    drawn = prompts.draw(key, 3)
    assert drawn.labels.shape == (3, 4)


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


def test_a_negative_workspace_is_refused(key):
    with pytest.raises(ValueError, match="`workspace` must be a whole number of at least 0; got -1"):
        next_tokens(key, MarkovChain.binary(0.1, 0.1), batch=1, length=2, workspace=-1)


def test_a_position_is_predicted_by_a_causal_model_alone(key):
    """Readout, loss and mask together: the loss at n does not see later tokens, and is the hand-made one."""
    prompts = next_tokens(key, random_chain(5, 3, 1), batch=3, length=5, positions=0)
    encoder = wgf.encoders.SoftmaxAttention(3, key_dim=2, mask=wgf.encoders.Causal())
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder).layered(2, 3, key))
    readout, loss = wgf.objective.EveryRows(0, 3), wgf.objective.CrossEntropy()
    objective = wgf.Objective(prompts, loss=loss, readout=readout)
    logits = np.asarray(objective.outputs(model))
    chosen = np.take_along_axis(logits, np.asarray(prompts.labels)[:, None], axis=1)[:, 0]
    expected = np.log(np.exp(logits).sum(axis=1)) - chosen
    np.testing.assert_allclose(objective.risk(model), expected.mean(), rtol=1e-12)
    np.testing.assert_allclose(model(prompts.tokens[..., :3]), logits[..., :3], atol=1e-14)
