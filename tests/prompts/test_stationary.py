"""Stationary laws against exact arithmetic."""

from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FLOATS, bound
from hypothesis import given, settings, strategies as st
from scipy.sparse.csgraph import connected_components

from wgf.prompts import MarkovChain


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
