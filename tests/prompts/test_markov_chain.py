"""Markov chains against closed forms, exact arithmetic and counts."""

import itertools
from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FLOATS, bound
from hypothesis import given, settings, strategies as st
from scipy import stats
from scipy.sparse.csgraph import connected_components

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


@st.composite
def sticky(draw):
    """Transition matrices of 2 to 6 states that may hardly move, of which some moves may be impossible."""
    dtype = draw(st.sampled_from(FLOATS))
    least = -4.0 if dtype is jnp.float32 else -6.0
    states = draw(st.integers(2, 6))
    exponents = st.one_of(st.none(), st.floats(least, 0), st.floats(least, least + 1))
    moves = draw(st.lists(exponents, min_size=states**2, max_size=states**2))
    matrix = np.array([0.0 if move is None else 10**move / states for move in moves]).reshape(states, states)
    np.fill_diagonal(matrix, 0)
    matrix = matrix.astype(dtype)
    np.fill_diagonal(matrix, 1 - matrix.sum(axis=1))
    return matrix


def closed_classes(matrix):
    """The sets of states that are not left and within which each state comes to each other."""
    count, classes = connected_components(matrix > 0, connection="strong")
    within = classes[:, None] == classes
    left = {int(c) for c in classes[((matrix > 0) & ~within).any(axis=1)]}
    return [np.flatnonzero(classes == c) for c in range(count) if c not in left]


def exact_law(matrix):
    """The stationary law of an irreducible chain by Gauss's elimination in fractions, from its moves as they are."""
    moves = [[Fraction(float(entry)) for entry in row] for row in matrix]
    count = len(moves)
    for i in range(count):
        moves[i][i] = 1 - sum(moves[i][j] for j in range(count) if j != i)
    # Columns of K - I, but for the last, which the sum of the law replaces.
    rows = [[moves[i][j] - (i == j) for i in range(count)] + [Fraction(0)] for j in range(count - 1)]
    rows.append([Fraction(1)] * (count + 1))
    for i in range(count):
        pivot = next(k for k in range(i, count) if rows[k][i] != 0)
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [entry / rows[i][i] for entry in rows[i]]
        for k in range(count):
            if k != i:
                rows[k] = [a - rows[k][i] * b for a, b in zip(rows[k], rows[i], strict=True)]
    return np.array([float(row[-1]) for row in rows])


@settings(deadline=None, max_examples=150)
@given(sticky())
def test_the_stationary_law_has_all_digits_however_sticky_the_chain(matrix):
    """Against exact arithmetic on the closed class; a chain with several closed classes is refused."""
    classes = closed_classes(matrix)
    if len(classes) > 1:
        with pytest.raises(ValueError, match="`transition` must have one stationary law; got several"):
            MarkovChain(matrix)
        return
    (recurrent,) = classes
    expected = np.zeros(len(matrix))
    expected[recurrent] = exact_law(matrix[np.ix_(recurrent, recurrent)])
    law = MarkovChain(matrix).stationary()
    assert law.dtype == matrix.dtype
    np.testing.assert_allclose(law, expected, rtol=30 * np.finfo(matrix.dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("p", [1.0, 0.3, 0.05, 0.02, 0.01, 1e-3, 1e-4, 1e-6])
def test_a_symmetric_chain_has_equal_halves(p, dtype):
    p = dtype(p)
    for chain in (MarkovChain.binary(p, p), jax.jit(MarkovChain.binary)(p, p)):
        assert chain.transition.dtype == dtype
        np.testing.assert_array_equal(chain.stationary(), [0.5, 0.5])


@pytest.mark.parametrize(
    ("matrix", "law"),
    [
        ([[0.5, 0.5, 0], [0, 0.25, 0.75], [0, 0.75, 0.25]], [0, 0.5, 0.5]),
        ([[0, 1, 0], [0, 0, 1], [1, 0, 0]], [1 / 3, 1 / 3, 1 / 3]),
        ([[0, 1, 0], [0.5, 0, 0.5], [0, 1, 0]], [0.25, 0.5, 0.25]),
        ([[1, 0], [1e-6, 1 - 1e-6]], [1, 0]),
    ],
    ids=["transient", "a cycle", "periodic", "absorbing"],
)
def test_transient_states_and_periods_are_fine(matrix, law):
    np.testing.assert_allclose(MarkovChain(np.array(matrix)).stationary(), law, rtol=bound(1e-15, 2e-6))


@pytest.mark.parametrize("traced", [False, True])
def test_several_closed_classes_are_refused(traced):
    trapped = jnp.array([[1, 0, 0], [0.5, 0, 0.5], [0, 0, 1.0]])
    with pytest.raises(
        eqx.EquinoxRuntimeError if traced else ValueError, match="`transition` must have one stationary"
    ):
        (eqx.filter_jit(MarkovChain) if traced else MarkovChain)(trapped)


def test_the_law_of_a_sticky_chain_has_derivatives():
    """π₁ = p / (p + q), along p and q on the simplex."""
    p, q = 1e-6, 3e-6
    slope = jax.grad(lambda p: MarkovChain.binary(p, q).marginal()[1])(p)
    np.testing.assert_allclose(slope, q / (p + q) ** 2, rtol=bound(1e-12, 2e-6))


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
    np.testing.assert_allclose(objective.risk(model), expected.mean(), rtol=bound(1e-12, 2e-6))
    np.testing.assert_allclose(model(prompts.tokens[..., :3]), logits[..., :3], atol=bound(1e-14, 2e-6))


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


def test_symbols_that_are_no_integers_are_refused(unchecked):
    with pytest.raises(ValueError, match="`symbols` must be symbols 0 to 1, as integers; got type float64"):
        symbol_tokens(np.array([[0.0, 0.5]]), 2)


def test_fewer_symbols_than_a_context_have_no_law():
    with pytest.raises(ValueError, match="`tokens` must hold at least 3 symbols, one context; got 2"):
        random_chain(0, 2, 3).next_laws(jnp.zeros((1, 2), int))
