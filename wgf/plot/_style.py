"""The common style of all plots: colours and axes."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

LIMIT = "black"
CLOUD = "#8a8a8a"
GLOBAL = "#2a7f62"
LOCAL = "#c0392b"
GROUPS = ("#31688e", "#d1495b", "#2a7f62", "#e08e2b")
KINDS = (*GROUPS[1::-1], LIMIT)


def two_families(count: int) -> list:
    """Colour and dash of each curve: the first half solid, the second half dashed, in the same colours."""
    half = count // 2
    return [(colour, dash) for dash in ("-", "--") for colour in colours(half)]


def colours(count: int) -> list:
    """`count` colours from light to dark."""
    return [colormaps["viridis"](place) for place in np.linspace(0.05, 0.85, count)[::-1]]


def finish(axes: Axes, x: str, y: str, title: str, legend: Any = "best", columns: int = 1) -> None:
    """Set labels and title, draw a light grid, and draw the legend unless it is None."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if legend is not None:
        axes.legend(fontsize=8, frameon=False, loc=legend, ncols=columns)
