"""The common style of all plots: colours and axes."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

LIMIT = "black"
CLOUD = "#8a8a8a"
FAINT = "#b9c4cc"
GROUPS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Blue, orange, green and purple of M. Okabe and K. Ito, which differ also without receptors of red or green light."""
ACCENT = "#8b0000"
"""A dark red for one more curve beside a scale of six `colours`, orange and black."""
GLOBAL, LOCAL = GROUPS[:2]
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
    return [colormaps["viridis"](place) for place in np.linspace(0, 0.8, count)[::-1]]


def finish(axes: Axes, x: str, y: str, title: str, legend: Any = "best", columns: int = 1) -> None:
    """Set labels and title, draw a light grid, and draw the legend unless it is None.

    The legend `"above"` is in a band of its own above the data, and the legend `"below"` is outside the axes.
    """
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=TITLE)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if legend == "above":
        legend_above(axes, columns)
    elif legend == "below":
        legend_below(axes, columns)
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


def legend_below(axes: Axes, columns: int = 1) -> None:
    """Draw the legend outside the axes, below the label of x. A figure of the layout `"constrained"` makes room."""
    root, label = root_of(axes), axes.xaxis.get_tightbbox()
    inches = 0.0 if label is None else (axes.get_window_extent().y0 - label.y0) / root.dpi
    axes.legend(
        fontsize=SMALL,
        frameon=False,
        loc="upper center",
        ncols=columns,
        borderaxespad=0.3,
        bbox_to_anchor=(0.5, 0),
        bbox_transform=axes.transAxes + ScaledTranslation(0, -inches, root.dpi_scale_trans),
    )


def root_of(axes: Axes) -> Figure:
    """The figure that axes are in, also if they are in a part of it."""
    root = axes.get_figure(root=True)
    assert isinstance(root, Figure)
    return root
