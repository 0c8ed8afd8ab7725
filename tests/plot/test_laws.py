"""Measured points and the laws fitted to them."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from wgf import plot
from wgf.plot._style import LIMIT, LOCAL

X = np.array([2.0, 4.0, 8.0])


@pytest.fixture
def axes():
    return Figure().subplots()


def test_points_are_root_mean_squares_with_bars_of_two_standard_errors(axes):
    """Bars are symmetric in the logarithm: two standard errors of the mean square, halved by the root."""
    seeds = np.array([[1.0, 2.0, 2.0], [0.5, 0.5, 0.5], [0.1, 0.2, 0.3]])
    plot.fitted(axes, {"law": (X, seeds, 1 / X)}, ("x", "y"), "title")
    points, _, (bars,) = axes.containers[0]
    middle = np.sqrt(np.mean(seeds**2, axis=1))
    np.testing.assert_allclose(points.get_ydata(), middle)
    share = np.std(seeds**2, axis=1, ddof=1) / np.sqrt(3) / np.mean(seeds**2, axis=1)
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends, middle[:, None] * np.exp(np.stack([-share, share], axis=1)))
    line = axes.lines[-1]
    np.testing.assert_array_equal(line.get_ydata(), 1 / X)
    assert (line.get_linestyle(), line.get_color()) == ("--", points.get_color())
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "4", "8"]


@pytest.mark.parametrize(("high", "plain"), [(50.0, True), (1e6, False)])
def test_few_decades_have_plain_numbers_and_many_powers_of_ten(axes, high, plain):
    ends = np.array([1.0, high])
    plot.power_laws(axes, {"law": (X, X, ends, ends)}, ("x", "y"), "title")
    assert isinstance(axes.xaxis.get_major_formatter(), ScalarFormatter) == plain
    assert axes.lines[0].get_linestyle() == "--"
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), np.stack([X, X], axis=1))


@pytest.mark.parametrize("rests", [True, False])
def test_runs_that_are_not_at_rest_have_hollow_marks(axes, rests):
    rest = np.array([True, rests, True])
    curves = {"a": (X, X, np.full(3, True)), "b": (X, 2 * X, rest)}
    plot.swept(axes, curves, ("guide", X, X**2), ("x", "y"), "title")
    hollow = axes.lines[3]
    np.testing.assert_array_equal(hollow.get_ydata(), np.where(rest, np.nan, 2 * X))
    assert hollow.get_markerfacecolor() == "white"
    assert axes.lines[2].get_color() == LOCAL
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["a", "b", *([] if rests else ["stopped, not at rest"]), "guide"]
    assert (axes.lines[-1].get_color(), axes.lines[-1].get_linestyle()) == (LIMIT, "--")


def test_a_comparison_may_be_left_out(axes):
    plot.swept(axes, {"a": (X, X, X > 0)}, None, ("x", "y"), "title")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a"]


def test_a_prediction_is_a_line_over_the_points(axes):
    plot.prediction(axes, X, X**2, "theory", "title")
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), X**2)
    assert (axes.lines[0].get_color(), axes.get_title()) == ("black", "title")
