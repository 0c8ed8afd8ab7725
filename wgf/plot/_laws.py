"""Points against what a law says of them."""

import itertools
from collections.abc import Mapping

import numpy as np
from jaxtyping import ArrayLike
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from ._style import CLOUD, GROUPS, LIMIT, LOCAL, colours, finish


def fitted(
    axes: Axes,
    groups: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    labels: tuple[str, str],
    title: str,
) -> None:
    """Root mean squares of seeds with bars of two standard errors, and a fitted line in the same colour, on log scales.

    **Arguments:** axes; for each name abscissae `[points]`, ordinates `[points, seeds]` and the line `[points]`; the
    axes' names; the title.
    """
    marks = itertools.cycle(("o", "s", "^", "D"))
    for colour, mark, (name, (xs, ys, line)) in zip(colours(len(groups)), marks, groups.items(), strict=False):
        squares = np.asarray(ys) ** 2
        middle = np.sqrt(np.mean(squares, axis=1))
        # Of the logarithm, so that bars stay above zero.
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
    """Points on log scales, a colour for each group, and a fitted line through each.

    **Arguments:** axes; for each name points `[count]`, `[count]` and the line's ends `[2]`, `[2]`; names; the title.
    """
    for colour, (name, (xs, ys, line_x, line_y)) in zip(GROUPS, groups.items(), strict=False):
        axes.scatter(xs, ys, s=12, color=colour, alpha=0.6, linewidths=0)
        axes.plot(line_x, line_y, color=colour, linestyle="--", linewidth=1.5, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        if high > 300 * low or low < 1e-4:
            continue  # many decades, or small numbers: powers of ten
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())
    finish(axes, *labels, title)


def swept(
    axes: Axes,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    guide: tuple[str, ArrayLike, ArrayLike] | None,
    labels: tuple[str, str],
    title: str,
) -> None:
    """Curves on log scales; hollow marks where a run had not come to rest; the last curve in red.

    **Arguments:** axes; for each name abscissae, ordinates and whether each is at rest, `[points]`; the name,
    abscissae and ordinates of a dashed line to compare with, if any; the axes' names; the title.
    """
    for colour, (name, (xs, ys, rest)) in zip([*colours(len(curves) - 1), LOCAL], curves.items(), strict=True):
        ys, hollow = np.asarray(ys), ~np.asarray(rest)
        axes.plot(xs, ys, color=colour, marker="o", markersize=5, linewidth=1.3, label=name)
        axes.plot(xs, np.where(hollow, ys, np.nan), "o", color=colour, markersize=5, markerfacecolor="white")
    if not all(np.all(rest) for *_, rest in curves.values()):
        axes.plot([], [], "o", color=CLOUD, markersize=5, markerfacecolor="white", label="stopped, not at rest")
    if guide is not None:
        axes.plot(guide[1], guide[2], color=CLOUD, linestyle="--", linewidth=1.2, label=guide[0])
    axes.set_xscale("log")
    axes.set_yscale("log")
    finish(axes, *labels, title)


def prediction(axes: Axes, x: ArrayLike, y: ArrayLike, name: str, title: str) -> None:
    """A prediction in black over measured points, and the title of both.

    **Arguments:** axes that hold the points; the line's points, `[count]` each; its name; the title.
    """
    axes.plot(x, y, color=LIMIT, linewidth=1.2, label=name)
    axes.set_title(title, fontsize=11)
    axes.legend(fontsize=8, frameon=False)
