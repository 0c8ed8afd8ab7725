"""Curves in groups: what is drawn of seeds, epochs and ranges."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from wgf import plot

X = np.array([1.0, 2.0, 4.0])
SEEDS = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])


@pytest.fixture
def axes():
    return Figure().subplots()


def names(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_bundle_has_a_line_per_seed_and_a_name_per_group(axes):
    plot.bundles(axes, {"a": (np.stack([X, X]), SEEDS), "b": (X[None], SEEDS[:1])}, "x", "y", "title")
    assert len(axes.lines) == 3
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), SEEDS[1])
    assert axes.lines[0].get_color() == axes.lines[1].get_color() != axes.lines[2].get_color()
    assert names(axes) == ["a", "b"]
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize("log", [False, True])
def test_learning_curves_are_means_with_the_range_of_the_training_data(axes, log):
    plot.learning_curves(axes, X, {"a": (SEEDS, 2 * SEEDS)}, "risk", "title", log=log)
    train, held_out = axes.lines[:2]
    np.testing.assert_allclose(train.get_ydata(), [2, 2, 2])
    np.testing.assert_allclose(held_out.get_ydata(), [4, 4, 4])
    assert (train.get_linestyle(), held_out.get_linestyle()) == ("-", "--")
    band = np.asarray(axes.collections[0].get_paths()[0].vertices)[:, 1]
    assert (band.min(), band.max()) == (1, 3)
    assert names(axes) == ["a", "training", "held out"]
    assert axes.get_yscale() == ("log" if log else "linear")


def test_ranges_reach_from_the_least_to_the_greatest_seed(axes):
    values = np.array([[1.0, 2.0, 4.0], [3.0, 5.0, 9.0]])
    plot.ranges(axes, {"a": (X[:2], values), "b": (X[:2], 2 * values)}, "x", "y", "title")
    middle, _, (bars,) = axes.containers[0]
    np.testing.assert_array_equal(middle.get_ydata(), [2, 5])
    np.testing.assert_allclose([segment[:, 1] for segment in bars.get_segments()], [[1, 4], [3, 9]])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2"]
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_the_second_half_of_the_families_is_dashed(axes):
    groups = {name: (np.arange(1, 4), X) for name in "abcd"}
    plot.families(axes, groups, "x", "y", "title")
    assert [line.get_linestyle() for line in axes.lines] == ["-", "-", "--", "--"]
    assert axes.lines[0].get_color() == axes.lines[2].get_color()
    assert all(tick == int(tick) for tick in axes.get_xticks())


def test_many_groups_are_all_drawn(axes):
    groups = {str(i): (X, X + 1 + i) for i in range(6)}
    plot.courses(axes, groups, ("x", "y"), "title", legend="lower left")
    assert [line.get_label() for line in axes.lines] == list(groups)
    assert len({str(line.get_color()) for line in axes.lines}) == 6


@pytest.mark.parametrize("backwards", [False, True])
def test_courses_leave_out_what_is_not_positive(axes, backwards):
    plot.courses(axes, {"a": (X, np.array([1.0, 0.0, -1.0]))}, ("x", "y"), "title", backwards=backwards)
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [1, np.nan, np.nan])
    assert axes.xaxis_inverted() == backwards
    assert axes.get_xscale() == ("log" if backwards else "linear")
