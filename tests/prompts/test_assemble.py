"""Positional encodings, and how tokens are stacked."""

import numpy as np
import pytest
from helpers import bound
from hypothesis import given, settings, strategies as st

from wgf.prompts._assemble import positional_encoding


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 4), st.integers(2, 12))
def test_positional_encodings_lie_on_unit_circles(pairs, length):
    encoding = np.asarray(positional_encoding(2 * pairs, length)).reshape(pairs, 2, length)
    np.testing.assert_allclose(np.sum(encoding**2, axis=1), 1, atol=1e-14)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 4), st.integers(2, 12))
def test_distinct_positions_have_distinct_encodings(pairs, length):
    encoding = np.asarray(positional_encoding(2 * pairs, length)).T
    distances = np.linalg.norm(encoding[:, None] - encoding, axis=-1) + 9 * np.eye(length)
    assert distances.min() > 2 * np.sin(np.pi / length) - bound(1e-12, 2e-6), distances


def test_positional_encoding_by_hand():
    expected = [[1, 0, -1, 0], [0, 1, 0, -1], [1, -1, 1, -1], [0, 0, 0, 0]]
    np.testing.assert_allclose(positional_encoding(4, 4), expected, atol=1e-15)


def test_no_positions_give_no_rows():
    assert positional_encoding(0, 3).shape == (0, 3)


def test_an_odd_number_of_positions_is_refused():
    with pytest.raises(ValueError, match=r"`positions` must be even .*; got 3"):
        positional_encoding(3, 4)


def test_a_negative_number_of_positions_is_refused():
    with pytest.raises(ValueError, match="`positions` must be a whole number of at least 0; got -2"):
        positional_encoding(-2, 4)
