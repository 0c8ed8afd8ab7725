"""Results by kind of encoder."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import ArrayLike
from matplotlib.axes import Axes

from ._names import name_points
from ._style import KINDS, finish


def strips(
    axes: Axes,
    names: Sequence[str],
    values: Sequence[ArrayLike],
    kinds: Sequence[int],
    legend: Sequence[str],
    label: str,
    title: str,
) -> None:
    """A row of dots per name on a log scale, one dot per seed and a bar at the median, with a colour per kind.

    **Arguments:** the axes; the names; the values `[seeds]` and the kind (0, 1 or 2) of each name; the names of the
    kinds; the label of the values; the title.
    """
    for row, (seeds, kind) in enumerate(zip(values, kinds, strict=True)):
        seeds = np.asarray(seeds)
        axes.plot(seeds, np.full(seeds.shape, row), "o", color=KINDS[kind], markersize=4, alpha=0.6)
        axes.plot(np.median(seeds), row, "|", color=KINDS[kind], markersize=13, markeredgewidth=2.4)
    for colour, kind in zip(KINDS, legend, strict=True):
        axes.plot([], [], "o", color=colour, label=kind)
    axes.set_xscale("log")
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    finish(axes, label, "", title)


def kind_curves(axes: Axes, taus: ArrayLike, risks: Sequence[ArrayLike], kinds: Sequence[int], title: str) -> None:
    """Relative risks along training on log scales, in the colours of `strips`.

    **Arguments:** the axes; the times `[saves]`; the risks `[saves]` and the kind of each curve; the title.
    """
    for risk, kind in zip(risks, kinds, strict=True):
        axes.plot(taus, risk, color=KINDS[kind], linewidth=1.2, alpha=0.85)
    axes.set_xscale("log")
    axes.set_yscale("log")
    finish(axes, "training time τ", "risk / null risk", title, legend=None)


def kind_points(
    axes: Axes, x: ArrayLike, y: ArrayLike, names: Sequence[str], kinds: Sequence[int], labels: tuple[str, str]
) -> None:
    """Named points on log scales, in the colours of `strips`.

    **Arguments:** the axes; x and y, `[points]` each; the name and the kind of each point; the labels of x and y.
    """
    colours = [KINDS[kind] for kind in kinds]
    for px, py, colour in zip(np.asarray(x), np.asarray(y), colours, strict=True):
        axes.plot(px, py, "o", color=colour, markersize=5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.12, y=0.12)
    axes.autoscale_view()
    finish(axes, *labels, "", legend=None)
    name_points(axes, np.asarray(x), np.asarray(y), names, colours)
