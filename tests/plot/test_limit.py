"""Plots of gaps and distances with the limit's own error."""

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


def bars(axes):
    """The lower and upper ends of the first error bars, `[points, 2]`."""
    (segments,) = [lines for lines in axes.containers[0][2]]
    return np.array([segment[:, 1] for segment in segments.get_segments()])


def test_bars_are_one_standard_error_and_stay_above_zero():
    axes = Figure().subplots()
    plot.gap_curves(axes, TAUS, GAPS, "gap", errors={"L = 2": np.array([0.01, 0.01, 0.05])})
    np.testing.assert_allclose(bars(axes), [[0.01, 0.03], [0.02, 0.04], [0.004, 0.09]])


def test_a_signed_gap_is_drawn_beside_the_limits_own_error():
    axes = Figure().subplots()
    gap, error, noise = np.array([-0.02, 0.0, 0.01]), np.full(3, 0.005), np.array([0.0, 0.01, 0.02])
    plot.signed_gap_curves(axes, TAUS, {"L = 2": gap}, "risk gap", {"L = 2": error}, noise, "title")
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), gap)
    np.testing.assert_allclose(bars(axes), np.stack([gap - error, gap + error], axis=1))
    band = np.asarray(axes.collections[0].get_paths()[0].vertices)[:, 1]
    assert (band.min(), band.max()) == (-0.02, 0.02)
    assert axes.get_yscale() == "linear"


DRAWN = {
    "gap_curves": lambda axes, legend: plot.gap_curves(axes, TAUS, GAPS, "gap", legend=legend),
    "signed_gap_curves": lambda axes, legend: plot.signed_gap_curves(
        axes, TAUS, GAPS, "gap", {"L = 2": TAUS / 100}, TAUS / 100, "title", legend=legend
    ),
    "distance_laws": lambda axes, legend: plot.distance_laws(
        axes, TAUS[1:], {"coupling": (np.array([[0.3, 0.4], [0.1, 0.2]]), None, 0.01)}, "title", legend=legend
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_legend_below_the_axes_leaves_their_height_to_the_data(name):
    limits = []
    for legend in ("above", "below", "lower left"):
        axes = Figure(layout="constrained").subplots()
        DRAWN[name](axes, legend)
        limits.append(axes.get_ylim())
        assert axes.get_legend() is not None
    above, below, inside = limits
    assert below == inside
    assert above[1] > below[1]


def test_distances_have_marks_of_their_own():
    axes = Figure().subplots()
    values = np.array([[0.3, 0.4], [0.1, 0.2]])
    plot.distance_laws(axes, TAUS[1:], {name: (values, None, 0.01) for name in "abc"}, "title")
    assert [points.get_marker() for points, *_ in axes.containers] == ["o", "s", "^"]


def test_distances_against_size_show_their_fit_and_the_limits_own_error():
    axes, counts = Figure().subplots(), np.array([4.0, 16.0])
    values = np.array([[0.3, 0.4], [0.1, 0.2]])
    groups = {"coupling": (values, np.array([0.35, 0.16]), 0.01), "Sinkhorn": (values / 2, None, 0.02)}
    plot.distance_laws(axes, counts, groups, "title")
    points, fit, noise = axes.lines[0], axes.lines[1], axes.lines[2]
    np.testing.assert_allclose(points.get_ydata(), np.sqrt(np.mean(values**2, axis=1)))
    np.testing.assert_array_equal(fit.get_ydata(), [0.35, 0.16])
    assert set(noise.get_ydata()) == {0.01}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["PDE's own error", "coupling", "Sinkhorn"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["4", "16"]
