"""The one-layer Transformer against a forward pass by hand, the canonical model, and its own training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import bound

import wgf
from wgf.companions import CanonicalMarkov, NextTokenLoss, OneLayerTransformer
from wgf.prompts import MarkovChain

CHAIN = MarkovChain.binary(0.9, 0.9)
# Compiled as a whole: drawing weights one by one would compile a program each.
standard, rank_one = eqx.filter_jit(OneLayerTransformer.standard), eqx.filter_jit(OneLayerTransformer.rank_one)
drawn = eqx.filter_jit(NextTokenLoss.drawn)


def by_hand(model, symbols):
    """One position of one sequence at a time, in NumPy."""
    model = jax.tree.map(np.asarray, model)
    head = model.token if model.head is None else model.head
    logits = []
    for n in range(len(symbols)):
        seen = np.stack([symbols[m] * model.token + model.position[m] for m in range(n + 1)])
        scores = np.exp(seen @ model.key.T @ (model.query @ seen[-1]) / np.sqrt(len(model.token)))
        attended = seen[-1] + model.project @ model.value @ (scores @ seen) / scores.sum()
        out = attended + model.contract @ np.maximum(model.expand @ attended, 0)
        logits.append(out @ head + model.bias)
    return np.array(logits)


@pytest.mark.parametrize("tied", [True, False])
def test_the_logits_are_those_by_hand(tied, key):
    model = standard(key, length=7, dim=3, hidden=5, scale=1.0, tied=tied)
    symbols = jax.random.bernoulli(key, shape=(2, 6)).astype(int)
    expected = np.stack([by_hand(model, np.asarray(row)) for row in symbols])
    np.testing.assert_allclose(eqx.filter_jit(model)(symbols), expected, atol=bound(1e-12, 2e-6))


@pytest.mark.parametrize(("e", "w"), [(0.5, -1.2), (-1.3, 0.4)])
def test_rank_one_is_the_canonical_model(e, w, key):
    model = rank_one(key, e, w, length=5, dim=6, hidden=10)
    symbols = CHAIN.sample(key, 3, 5)
    expected = CanonicalMarkov(e, w).gain * (symbols - 0.5)
    np.testing.assert_allclose(eqx.filter_jit(model)(symbols), expected, atol=bound(1e-12, 2e-6))


def test_the_standard_weights_have_the_scale_asked_for(key):
    model = standard(key, length=500, dim=30, scale=0.1, tied=False)
    spread = {name: float(jnp.std(getattr(model, name))) for name in ("position", "query", "expand", "head")}
    assert spread == pytest.approx(dict.fromkeys(spread, 0.1), rel=0.3)
    outputs = [float(jnp.std(matrix)) for matrix in (model.project, model.contract)]
    assert outputs == pytest.approx([0.1 / np.sqrt(2)] * 2, rel=0.1)
    assert model.expand.shape == (120, 30)
    assert float(model.bias) == 0


@pytest.mark.slow
def test_gradient_flow_of_the_transformer_lowers_the_loss_by_what_it_dissipates(key):
    loss = drawn(CHAIN, key, batch=8, length=4)
    solution = wgf.flow(loss, rank_one(key, 0.5, -1.2, length=4), [0.0, 2.0, 4.0], rtol=1e-6)
    drop = solution.objective[0] - solution.objective
    np.testing.assert_allclose(solution.dissipated, drop, atol=1e-4 * float(drop[-1]))
    assert float(drop[-1]) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "low", "high", "seeds", "share"),
    [
        (lambda k: standard(k, length=16), 0.95, 1.05, 16, 2 / 3),
        (lambda k: rank_one(k, 0.5, -1.2, length=16), 0.0, 0.05, 4, 1),
        (lambda k: standard(k, length=16, tied=False), 0.0, 0.1, 4, 1),
    ],
    ids=["standard mostly fails", "in the basin succeeds", "untied succeeds"],
)
def test_initialisation_decides_for_chains_that_switch_often(make, low, high, seeds, share):
    """p + q > 1: 1,200 steps of Adam at half the rate of arXiv:2406.03072 (twice that rate frees the standard
    initialisation); the excess relative to that of the unigram model. Of 32 standard seeds 5 escape: more than a third
    of 16 would have a probability of 2 %."""
    probe = drawn(CHAIN, jax.random.key(1), batch=64, length=16)

    def one(key):
        solution = wgf.train(probe, make(key), optax.adam(1e-3), steps=1200, batch=32, key=key, throw=False)
        return probe.excess(solution.model_at(-1)) / (CHAIN.entropy() - CHAIN.entropy_rate())

    excess = np.asarray(eqx.filter_jit(eqx.filter_vmap(one))(jax.random.split(jax.random.key(2), seeds)))
    assert np.mean((low <= excess) & (excess <= high)) >= share, excess


def test_an_odd_number_of_neurons_is_refused_for_rank_one(key):
    with pytest.raises(ValueError, match="`hidden` must be even for neurons of either sign; got 3"):
        OneLayerTransformer.rank_one(key, 1.0, 1.0, length=4, hidden=3)


@pytest.mark.parametrize("name", ["length", "dim", "hidden"])
def test_a_count_below_one_is_refused(name, key):
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number of at least 1; got 0"):
        OneLayerTransformer.standard(key, **{"length": 4, name: 0})


@pytest.mark.parametrize(("symbols", "got"), [([[0, 2, 1]], "0 to 2"), ([[-1, 0, 1]], "-1 to 1")])
def test_symbols_that_are_not_binary_are_refused(symbols, got, key):
    symbols, model = jnp.array(symbols), standard(key, length=3)
    for call in (lambda symbols: NextTokenLoss(CHAIN, symbols), model):
        with pytest.raises(ValueError, match=f"`symbols` must be symbols 0 to 1; got {got}"):
            call(symbols)
    with pytest.raises(eqx.EquinoxRuntimeError, match="`symbols` must be symbols 0 to 1"):
        eqx.filter_jit(lambda symbols: NextTokenLoss(CHAIN, symbols))(symbols)
    assert jnp.isnan(eqx.filter_jit(model)(symbols)).any()


def test_more_symbols_than_positions_are_refused(key):
    with pytest.raises(ValueError, match="`symbols` must have at most 3 positions; got 4"):
        standard(key, length=3)(jnp.zeros((1, 4), int))
