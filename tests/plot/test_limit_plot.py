"""Plots of gaps with the limit's own error."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from wgf import plot

TAUS = np.array([0.0, 1.0, 2.0])
GAPS = {"L = 2": np.array([0.02, 0.03, 0.04])}


@pytest.mark.parametrize(
    ("noise", "bottom"),
    [
        # Noise below the gaps: the axis begins at half of its last value, not at its rounding error at the start.
        (np.array([1e-9, 1e-3, 2e-3]), 1e-3),
        # Noise among the gaps, or none: the gaps alone set the axis.
        (np.array([1e-9, 0.02, 0.03]), None),
        (np.zeros(3), None),
    ],
)
def test_the_limits_own_error_is_in_view_where_it_ends(noise, bottom):
    plain, with_noise = (Figure().subplots() for _ in range(2))
    plot.gap_curves(plain, TAUS, GAPS, "gap")
    plot.gap_curves(with_noise, TAUS, GAPS, "gap", noise)
    expected = plain.get_ylim()[0] if bottom is None else bottom
    assert with_noise.get_ylim()[0] == pytest.approx(expected, rel=1e-12)
