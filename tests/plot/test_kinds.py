"""Results by kind of encoder: a colour per kind, a dot per seed, names that do not overlap."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from wgf import plot
from wgf.plot._style import KINDS


@pytest.fixture
def axes():
    return Figure().subplots()


def test_a_strip_has_a_dot_per_seed_and_a_bar_at_the_median(axes):
    values = np.array([1.0, 2.0, 9.0]), np.array([3.0, 4.0, 5.0])
    plot.strips(axes, ["a", "b"], values, [2, 0], ["first", "second", "third"], "error", "title")
    for row, kind in enumerate((2, 0)):
        dots, bar = axes.lines[2 * row : 2 * row + 2]
        np.testing.assert_array_equal(dots.get_xdata(), values[row])
        np.testing.assert_array_equal(dots.get_ydata(), [row] * 3)
        assert float(np.squeeze(bar.get_xdata())) == np.median(values[row])
        assert dots.get_color() == bar.get_color() == KINDS[kind]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_ylim() == (1.5, -0.5)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["first", "second", "third"]


def test_curves_have_the_colours_of_their_kinds(axes):
    risks = [np.array([1.0, 0.5]), np.array([1.0, 0.1])]
    plot.kind_curves(axes, np.array([1.0, 10.0]), risks, [1, 0], "title")
    assert [line.get_color() for line in axes.lines] == [KINDS[1], KINDS[0]]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), risks[1])
    assert axes.get_legend() is None


def test_names_of_points_alternate_between_left_and_right_from_the_lowest_up(axes):
    x, y = np.array([1.0, 2.0, 3.0]), np.array([3.0, 1.0, 2.0])
    plot.kind_points(axes, x, y, ["high", "low", "middle"], [0, 1, 2], ("x", "y"))
    sides = {text.get_text(): text.get_ha() for text in axes.texts}
    assert sides == {"low": "right", "middle": "left", "high": "right"}
    assert [line.get_color() for line in axes.lines] == list(KINDS)
    assert axes.get_xscale() == axes.get_yscale() == "log"
