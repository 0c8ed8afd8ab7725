"""The common style: colours from light to dark, families of two dashes, axes with their names."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from wgf.plot._style import colours, finish, two_families


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
