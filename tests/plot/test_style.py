"""The common style: colours from light to dark, families of two dashes, axes with their names."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from wgf.plot._style import SMALL, colours, finish, legend_above, legend_below, two_families


def test_colours_run_from_light_to_dark():
    brightness = [float(np.mean(colour[:3])) for colour in colours(5)]
    assert brightness == sorted(brightness, reverse=True)
    assert len(set(brightness)) == 5


def test_two_families_have_the_same_colours_and_other_dashes():
    families = two_families(6)
    assert [dash for _, dash in families] == ["-"] * 3 + ["--"] * 3
    assert [colour for colour, _ in families[:3]] == [colour for colour, _ in families[3:]]


@pytest.mark.parametrize("legend", ["best", None])
def test_axes_are_named_and_have_a_legend_if_one_is_asked_for(legend):
    axes = Figure().subplots()
    axes.plot([0, 1], label="line")
    finish(axes, "x", "y", "title", legend=legend)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("x", "y", "title")
    assert (axes.get_legend() is None) == (legend is None)
    assert not axes.spines["top"].get_visible()


@pytest.mark.parametrize(("scale", "columns"), [("linear", 1), ("log", 1), ("log", 2)])
def test_a_legend_above_hides_no_data(scale, columns):
    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    for number in range(4):
        axes.plot([1, 2, 3], np.array([1.0, 9.0, 10.0]) / (1 + number), label=f"line {number}")
    axes.set_yscale(scale)
    bottom = axes.get_ylim()[0]
    finish(axes, "x", "y", "title", legend="above", columns=columns)
    figure.canvas.draw()
    highest = axes.transData.transform((3, 10.0))[1]
    box = axes.get_legend().get_window_extent()
    assert highest < box.y0 < box.y1 <= axes.get_window_extent().y1
    # No more room than is needed.
    assert box.y0 - highest < 0.2 * axes.get_window_extent().height
    assert axes.get_ylim()[0] == bottom


@pytest.mark.parametrize("columns", [1, 2])
def test_a_legend_below_is_outside_the_axes_and_inside_the_figure(columns):
    """It touches no label, and it leaves the limits of the axes as they are."""
    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    for number in range(4):
        axes.plot([1, 2, 3], [1, 9, 10 + number], label=f"line {number}")
    axes.set_xticks([1, 2, 3], ["one\nand more", "two", "three"])
    limits = axes.get_ylim()
    finish(axes, "x", "y", "title", legend="below", columns=columns)
    figure.draw_without_rendering()
    box, label = axes.get_legend().get_window_extent(), axes.xaxis.get_tightbbox()
    assert 0 <= box.y0 < box.y1 <= label.y0
    # No more room than is needed, at most a line of text.
    assert label.y0 - box.y1 < SMALL * figure.dpi / 72
    assert axes.get_ylim() == limits


def test_a_legend_below_needs_no_labels_of_x():
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], label="line")
    axes.xaxis.set_visible(False)
    legend_below(axes)
    figure.draw_without_rendering()
    assert axes.get_legend().get_window_extent().y0 >= 0
    assert axes.get_legend().get_window_extent().y1 <= axes.get_window_extent().y0


def test_texts_of_legends_have_the_smallest_size():
    axes = Figure().subplots()
    axes.plot([0, 1], label="line")
    legend_above(axes)
    assert {text.get_fontsize() for text in axes.get_legend().get_texts()} == {SMALL} == {9}
