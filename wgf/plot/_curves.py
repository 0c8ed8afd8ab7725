"""Curves in groups: of seeds, by epoch, with ranges, and of long runs."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import ArrayLike
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter

from ._style import LIMIT, colours, distinct, finish, two_families


def bundles(axes: Axes, groups: Mapping[str, tuple[ArrayLike, ArrayLike]], x: str, y: str, title: str) -> None:
    """Bundles of curves on a log scale: a thin line per seed, a colour per group.

    **Arguments:** the axes; per group its name with x and y, `[seeds, points]` each; the labels of x and y; the title.
    """
    for colour, (name, (xs, ys)) in zip(distinct(len(groups)), groups.items(), strict=True):
        lines = axes.plot(np.asarray(xs).T, np.asarray(ys).T, color=colour, linewidth=0.9, alpha=0.6)
        lines[0].set_label(name)
    axes.set_yscale("log")
    finish(axes, x, y, title, legend="above")


def learning_curves(
    axes: Axes,
    epochs: ArrayLike,
    groups: Mapping[str, tuple[ArrayLike, ArrayLike]],
    y: str,
    title: str,
    *,
    log: bool = False,
) -> None:
    """Means over seeds, solid for training data and dashed for held-out data. The range of the training data is shaded.

    **Arguments:** the axes; the epochs `[saves]`; per group its name with the values on both data sets,
    `[seeds, saves]` each; the label of y; the title; whether y has a log scale.
    """
    for colour, (name, (train, held_out)) in zip(colours(len(groups)), groups.items(), strict=True):
        train, held_out = np.asarray(train), np.asarray(held_out)
        axes.fill_between(epochs, train.min(axis=0), train.max(axis=0), color=colour, alpha=0.15, linewidth=0)
        axes.plot(epochs, train.mean(axis=0), color=colour, linewidth=1.6, label=name)
        axes.plot(epochs, held_out.mean(axis=0), color=colour, linewidth=1.1, linestyle="--")
    axes.plot([], [], color=LIMIT, linewidth=1.6, label="training")
    axes.plot([], [], color=LIMIT, linewidth=1.1, linestyle="--", label="held out")
    if log:
        axes.set_yscale("log")
    finish(axes, "epoch", y, title)


def ranges(axes: Axes, groups: Mapping[str, tuple[ArrayLike, ArrayLike]], x: str, y: str, title: str) -> None:
    """Medians and ranges over seeds on log scales: the first half of the groups solid, the second half dashed.

    **Arguments:** the axes; per group its name with x `[points]` and y `[points, seeds]`; the labels of x and y; the
    title.
    """
    for (name, (xs, ys)), (colour, dash) in zip(groups.items(), two_families(len(groups)), strict=True):
        ys = np.asarray(ys)
        middle, low, high = np.median(ys, axis=1), ys.min(axis=1), ys.max(axis=1)
        bars = np.stack([middle - low, high - middle])
        axes.errorbar(
            xs,
            middle,
            bars,
            color=colour,
            linestyle=dash,
            marker="o",
            markersize=3.5,
            capsize=2,
            linewidth=1.2,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    places = np.unique(np.concatenate([np.asarray(xs) for xs, _ in groups.values()]))
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.xaxis.set_minor_formatter(NullFormatter())
    finish(axes, x, y, title, legend="above", columns=2)


def families(axes: Axes, groups: Mapping[str, tuple[ArrayLike, ArrayLike]], x: str, y: str, title: str) -> None:
    """Curves on a log scale: the first half of the groups solid, the second half dashed, in the same colours.

    **Arguments:** the axes; per group its name with x and y, `[points]` each; the labels of x and y; the title.
    """
    for (name, (xs, ys)), (colour, dash) in zip(groups.items(), two_families(len(groups)), strict=True):
        axes.plot(xs, ys, color=colour, linestyle=dash, marker="o", markersize=3, linewidth=1.3, label=name)
        if np.issubdtype(np.asarray(xs).dtype, np.integer):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_yscale("log")
    finish(axes, x, y, title)


def courses(
    axes: Axes,
    groups: Mapping[str, tuple[ArrayLike, ArrayLike]],
    labels: tuple[str, str],
    title: str,
    *,
    backwards: bool = False,
    legend: str | None = "best",
) -> None:
    """Curves on a log scale, a colour per group.

    **Arguments:** the axes; per group its name with x and y, `[points]` each; the labels of x and y; the title; whether
    x has a log scale that decreases to the right, as for a risk; the place of the legend, None for no legend.
    """
    for colour, (name, (x, y)) in zip(distinct(len(groups)), groups.items(), strict=True):
        shown = np.where(np.asarray(y) > 0, y, np.nan)
        axes.plot(x, shown, color=colour, marker="o", markersize=2.5, linewidth=1.3, label=name)
    axes.set_yscale("log")
    if backwards:
        axes.set_xscale("log")
        axes.invert_xaxis()
    finish(axes, *labels, title, legend)
