"""The method of eight equal weights: its symmetry."""

import numpy as np
from helpers import whole

from wgf.measures import EqualEighths


def test_the_costates_of_equal_eighths_follow_the_same_method_backward():
    a, b, c = whole(EqualEighths)
    np.testing.assert_array_equal(b, 1 / 8)
    # Hager's transformed adjoint: coefficients b_j a_ji / b_i, the stages in reversed order.
    transformed = (b * a.T / b[:, None])[::-1, ::-1]
    np.testing.assert_array_equal(transformed, a)
    np.testing.assert_allclose(1 - c[::-1], c, atol=1e-15)
    assert a[np.tril_indices(8, -1)].min() > 0
    assert np.min(np.diff(c)) > 1 / 16
