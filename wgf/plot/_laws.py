"""Measured points, and the laws fitted to them."""

import itertools
from collections.abc import Mapping

import numpy as np
from jaxtyping import ArrayLike
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from ._style import LIMIT, LOCAL, TITLE, colours, distinct, finish, legend_above


def fitted(
    axes: Axes,
    groups: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    labels: tuple[str, str],
    title: str,
) -> None:
    """Root mean squares over seeds with bars of two standard errors, and fitted lines in the same colours; log scales.

    **Arguments:** the axes; per group its name with x `[points]`, y `[points, seeds]` and the line `[points]`; the
    labels of x and y; the title.
    """
    marks = itertools.cycle(("o", "s", "^", "D"))
    for colour, mark, (name, (xs, ys, line)) in zip(colours(len(groups)), marks, groups.items(), strict=False):
        squares = np.asarray(ys) ** 2
        middle = np.sqrt(np.mean(squares, axis=1))
        # The standard error of the logarithm, so that bars stay above zero.
        error = np.std(squares, axis=1, ddof=1) / np.sqrt(squares.shape[1]) / (2 * middle**2)
        bars = np.stack([middle * (1 - np.exp(-2 * error)), middle * (np.exp(2 * error) - 1)])
        axes.errorbar(xs, middle, bars, color=colour, fmt=mark, markersize=4, capsize=2, linewidth=0.9, label=name)
        axes.plot(xs, line, color=colour, linestyle="--", linewidth=1.2)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    places = np.unique(np.concatenate([np.asarray(xs) for xs, *_ in groups.values()]))
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.xaxis.set_minor_formatter(NullFormatter())
    finish(axes, *labels, title)


def power_laws(
    axes: Axes,
    groups: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]],
    labels: tuple[str, str],
    title: str,
) -> None:
    """Points and a fitted line per group, in one colour, on log scales.

    **Arguments:** the axes; per group its name with x and y of the points, `[count]` each, and of the ends of the line,
    `[2]` each; the labels of x and y; the title.
    """
    for colour, (name, (xs, ys, line_x, line_y)) in zip(distinct(len(groups)), groups.items(), strict=True):
        axes.scatter(xs, ys, s=12, color=colour, alpha=0.6, linewidths=0)
        axes.plot(line_x, line_y, color=colour, linestyle="--", linewidth=1.5, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        if high > 300 * low or low < 1e-4:
            continue  # Many decades or small numbers keep powers of ten.
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())
    finish(axes, *labels, title, legend="above")


def swept(
    axes: Axes,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    guide: tuple[str, ArrayLike, ArrayLike] | None,
    labels: tuple[str, str],
    title: str,
) -> None:
    """Curves on log scales, the last one in orange. Hollow marks are runs that had not come to rest.

    **Arguments:** the axes; per curve its name with x, y and whether each run is at rest, `[points]` each; the name, x
    and y of a dashed line for comparison, or None; the labels of x and y; the title.
    """
    for colour, (name, (xs, ys, rest)) in zip([*colours(len(curves) - 1), LOCAL], curves.items(), strict=True):
        ys, hollow = np.asarray(ys), ~np.asarray(rest)
        axes.plot(xs, ys, color=colour, marker="o", markersize=5, linewidth=1.3, label=name)
        axes.plot(xs, np.where(hollow, ys, np.nan), "o", color=colour, markersize=5, markerfacecolor="white")
    if not all(np.all(rest) for *_, rest in curves.values()):
        axes.plot([], [], "o", color=LIMIT, markersize=5, markerfacecolor="white", label="stopped, not at rest")
    if guide is not None:
        axes.plot(guide[1], guide[2], color=LIMIT, linestyle="--", linewidth=1.2, label=guide[0])
    axes.set_xscale("log")
    axes.set_yscale("log")
    finish(axes, *labels, title)


def prediction(axes: Axes, x: ArrayLike, y: ArrayLike, name: str, title: str) -> None:
    """A prediction as a black line over measured points, and the title.

    **Arguments:** the axes that hold the points; x and y of the line, `[count]` each; its name; the title.
    """
    axes.plot(x, y, color=LIMIT, linewidth=1.2, label=name)
    axes.set_title(title, fontsize=TITLE)
    # The room for the legend is made anew.
    axes.autoscale(axis="y")
    legend_above(axes)
