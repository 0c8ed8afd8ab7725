"""Results by kind of encoder: a colour per kind, a dot per seed, names that do not overlap."""

import itertools

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


def test_points_have_names_in_the_colours_of_their_kinds(axes):
    x, y = np.array([1.0, 2.0, 3.0]), np.array([3.0, 1.0, 2.0])
    plot.kind_points(axes, x, y, ["high", "low", "middle"], [0, 1, 2], ("x", "y"))
    assert {text.get_text(): text.get_color() for text in axes.texts} == dict(
        zip(("high", "low", "middle"), KINDS, strict=True)
    )
    assert [line.get_color() for line in axes.lines] == list(KINDS)
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_names_of_near_points_do_not_overlap():
    """Nor do they leave the axes."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes, draw = figure.subplots(), np.random.default_rng(3)
    x, y = 10 ** draw.uniform(-1, 1, size=(2, 14))
    names = [f"encoder {number}" for number in range(14)]
    plot.kind_points(axes, x, y, names, [0] * 14, ("x", "y"))
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
    marks = axes.transData.transform(np.stack([x, y], axis=1))
    assert not [box for box in boxes for mark in marks if box.contains(*mark)]
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
