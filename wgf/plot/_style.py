"""The common style of all plots: colours and axes."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

LIMIT = "black"
CLOUD = "#8a8a8a"
GLOBAL = "#2a7f62"
LOCAL = "#c0392b"
GROUPS = ("#31688e", "#d1495b", "#2a7f62", "#e08e2b")
KINDS = (*GROUPS[1::-1], LIMIT)
TITLE, SMALL = 11, 9
"""Sizes of titles and of the smallest texts, in points. In print, smaller ones are hard to read."""


def two_families(count: int) -> list:
    """Colour and dash of each curve: the first half solid, the second half dashed, in the same colours."""
    half = count // 2
    return [(colour, dash) for dash in ("-", "--") for colour in colours(half)]


def distinct(count: int) -> list:
    """`count` colours that are told apart: those of `GROUPS`, or beyond these a scale from light to dark."""
    return list(GROUPS[:count]) if count <= len(GROUPS) else colours(count)


def colours(count: int) -> list:
    """`count` colours from light to dark."""
    return [colormaps["viridis"](place) for place in np.linspace(0.05, 0.85, count)[::-1]]


def finish(axes: Axes, x: str, y: str, title: str, legend: Any = "best", columns: int = 1) -> None:
    """Set labels and title, draw a light grid, and draw the legend unless it is None.

    The legend `"above"` is in a band of its own above the data.
    """
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=TITLE)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if legend == "above":
        legend_above(axes, columns)
    elif legend is not None:
        axes.legend(fontsize=SMALL, frameon=False, loc=legend, ncols=columns)


def legend_above(axes: Axes, columns: int = 1) -> None:
    """Raise the upper end of y, and draw the legend into the room that this makes above the data."""
    rows = -(-len(axes.get_legend_handles_labels()[1]) // columns)
    height = axes.get_window_extent().height * 72 / root_of(axes).dpi
    # A line takes 1.5 times the size of its letters. The rest are margins.
    share = min(0.6, SMALL * (1.5 * rows + 1) / height)
    scale = axes.yaxis.get_transform()
    bottom, top = scale.transform(np.array(axes.get_ylim()))
    axes.set_ylim(top=float(scale.inverted().transform(np.array([bottom + (top - bottom) / (1 - share)]))[0]))
    axes.legend(fontsize=SMALL, frameon=False, loc="upper right", ncols=columns)


def root_of(axes: Axes) -> Figure:
    """The figure that axes are in, also if they are in a part of it."""
    root = axes.get_figure(root=True)
    assert isinstance(root, Figure)
    return root
