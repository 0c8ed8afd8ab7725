"""Plots of models that learn Markov chains."""

import numpy as np
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from wgf import plot
from wgf.plot._style import GLOBAL, LOCAL


@pytest.fixture
def axes():
    return Figure().subplots()


@pytest.mark.parametrize("legend", [True, False])
def test_trajectories_have_the_colour_of_the_minimum_that_they_reach(axes, legend):
    side = np.linspace(-2, 2, 5)
    paths = np.array([[0.0, 1.0], [0.5, 1.5]]), np.array([[0.0, -1.0], [0.2, 0.4]]), np.array([True, False])
    best, bad = np.abs(side), np.where(side < 0, 0.0, np.nan)
    plot.phase_portrait(
        axes,
        side,
        np.add.outer(side, side),
        paths=paths,
        separatrix=np.array([[0.0, 1.0], [0.5, 1.5]]),
        best=best,
        bad=bad,
        title="title",
        legend=legend,
    )
    for line, w, e, colour in zip(axes.lines, *paths[:2], (GLOBAL, LOCAL), strict=False):
        np.testing.assert_array_equal(line.get_xydata(), np.stack([w, e], axis=1))
        assert same_color(line.get_color(), colour)
    up, down, local, border = axes.lines[2:]
    np.testing.assert_array_equal(up.get_ydata(), best)
    np.testing.assert_array_equal(down.get_ydata(), -best)
    np.testing.assert_array_equal(local.get_ydata(), bad)
    # Points (e, w), drawn in the plane (w, e).
    np.testing.assert_array_equal(border.get_xydata(), [[1.0, 0.0], [1.5, 0.5]])
    assert axes.get_xlim() == axes.get_ylim() == (-2, 2)
    assert (axes.get_legend() is not None) == legend


def test_shares_of_success_are_thinner_curve_by_curve(axes):
    shares = {"a": np.array([0.0, 1.0]), "b": np.array([0.5, 0.5]), "c": np.array([1.0, 0.0])}
    plot.success_curves(axes, np.array([0.1, 1.0]), shares, ("scale", "share"), "title")
    for line, share in zip(axes.lines, shares.values(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), share)
    widths = [line.get_linewidth() for line in axes.lines]
    assert widths == sorted(widths, reverse=True)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.1", "1"]


def test_steps_to_escape_and_seeds_that_never_do(axes):
    steps = np.array([[40.0, 60.0, 80.0], [20.0, 30.0, np.inf]])
    plot.escape_steps(axes, np.array([1e-3, 2e-3]), steps, np.array([100, 50]), "title")
    seen, _, others, never, law, median = axes.lines
    np.testing.assert_array_equal(seen.get_xydata(), [[1e-3, 40], [1e-3, 60], [1e-3, 80]])
    np.testing.assert_array_equal(others.get_xydata(), [[2e-3, 20], [2e-3, 30]])
    np.testing.assert_array_equal(never.get_xydata(), [[2e-3, 50]])
    np.testing.assert_array_equal(median.get_xydata(), [[1e-3, 60], [2e-3, 30]])
    np.testing.assert_allclose(law.get_ydata(), [60, 30])
    assert law.get_label() == "rate x steps = 0.06"


def test_where_no_seed_escapes_no_median_is_drawn(axes):
    plot.escape_steps(axes, np.array([1e-3]), np.full((1, 3), np.inf), np.array([100]), "title")
    assert [len(line.get_xydata()) for line in axes.lines] == [0, 3]


def test_a_share_of_none_is_a_bar_that_can_be_seen(axes):
    plot.success_bars(axes, ["one", "two"], {"a": np.array([0.0, 0.5]), "b": np.array([1.0, 0.25])}, "title")
    assert [bar.get_height() for bar in axes.patches] == [0.01, 0.5, 1.0, 0.25]
    centres = np.array([bar.get_x() + bar.get_width() / 2 for bar in axes.patches]).reshape(2, 2)
    np.testing.assert_allclose(centres.mean(axis=0), [0, 1], atol=1e-12)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["one", "two"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert axes.get_ylim() == (0, 1.06)


def test_excess_is_drawn_against_width(axes):
    plot.excess_curves(axes, {"a": (np.array([4, 16]), np.array([1.0, 0.2]))}, "title")
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[4, 1.0], [16, 0.2]])
    assert axes.get_xscale() == "log"


@pytest.mark.parametrize(("most", "top"), [(0.2, 1.06), (1.0, 1.06), (1.5, 1.59)])
def test_the_axis_of_the_excess_ends_at_the_unigram_minimum_unless_a_curve_is_above(axes, most, top):
    curves = {"a": (np.array([4, 16]), np.array([most, 0.1])), "b": (np.array([4, 16]), np.array([np.nan, 0.1]))}
    plot.excess_curves(axes, curves, "title")
    np.testing.assert_allclose(axes.get_ylim(), (-0.06, top))
