"""Plots of one-layer Transformers that learn Markov chains."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import ArrayLike
from matplotlib.axes import Axes

from ._style import CLOUD, FAINT, GLOBAL, GROUPS, LIMIT, LOCAL, SMALL, colours, finish


def phase_portrait(
    axes: Axes,
    side: ArrayLike,
    level: ArrayLike,
    *,
    paths: tuple[np.ndarray, np.ndarray, np.ndarray],
    separatrix: np.ndarray,
    best: np.ndarray,
    bad: np.ndarray,
    title: str,
    legend: bool = True,
) -> None:
    """Trajectories of the canonical model in the plane (w, e), with its minima and the border of their basins.

    **Arguments:**

    - `axes`, `title`, `legend`: the axes, the title, and whether to draw a legend.
    - `side`: the grid along both axes, `[points]`.
    - `level`: the invariant on the grid, `[e, w]`.
    - `paths`: w and e of the trajectories, `[paths, saves]` each, and whether each ends in a global minimum.
    - `separatrix`: the border of the basins as points (e, w).
    - `best`, `bad`: |e| of the global minima and e of the bad minima at each w of the grid; NaN where there are none.
    """
    axes.contour(side, side, level, levels=np.arange(-9, 10, 1.5), colors=FAINT, linewidths=0.6, linestyles="-")
    w, e, ends_best = paths
    ends = np.where(ends_best, GLOBAL, LOCAL)
    for x, y, colour in zip(w, e, ends, strict=True):
        axes.plot(x, y, color=colour, linewidth=0.5, alpha=0.55)
    axes.scatter(w[:, 0], e[:, 0], s=3, color=ends, linewidths=0)
    for sign in (1, -1):
        axes.plot(side, sign * best, color=GLOBAL, linewidth=2.2, label="global minima" if sign > 0 else None)
    axes.plot(side, bad, color=LOCAL, linewidth=3, label="bad local minima")
    axes.plot(separatrix[:, 1], separatrix[:, 0], color=LIMIT, linewidth=1.2, linestyle="--", label="border of basins")
    limit = float(np.max(side))
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    finish(axes, "w", "e", title, legend=None)
    if legend:
        axes.legend(fontsize=SMALL, loc="upper left", framealpha=0.9, handlelength=1.3, borderpad=0.3, labelspacing=0.3)


def success_curves(
    axes: Axes, scales: ArrayLike, success: Mapping[str, ArrayLike], labels: tuple[str, str], title: str
) -> None:
    """Shares of successful seeds against a scale, a curve per name.

    **Arguments:** the axes; the scales `[n]`; per name its shares `[n]`; the labels of x and y; the title.
    """
    _nested(axes, {name: (scales, share) for name, share in success.items()})
    axes.set_xscale("log")
    ticks = np.asarray(scales)
    axes.set_xticks(ticks, [f"{scale:g}" for scale in ticks])
    axes.minorticks_off()
    axes.set_ylim(-0.06, 1.06)
    finish(axes, *labels, title)


def escape_steps(axes: Axes, rates: ArrayLike, steps: ArrayLike, most: ArrayLike, title: str) -> None:
    """The steps that seeds take to escape the unigram solution, against the learning rate, in logarithms.

    A dashed line shows steps in inverse proportion to the rate. A seed that never escapes is a triangle at the end of
    its training.

    **Arguments:** the axes; the rates `[n]`; the steps `[n, seeds]`, infinite if never; the steps of each training
    `[n]`; the title.
    """
    rates, steps, most = (np.asarray(each, float) for each in (rates, steps, most))
    for rate, row, end in zip(rates, steps, most, strict=True):
        seen, never = row[np.isfinite(row)], row[np.isinf(row)]
        axes.plot(np.full(len(seen), rate), seen, "o", color=CLOUD, markersize=4, alpha=0.5)
        axes.plot(np.full(len(never), rate), np.full(len(never), end), "^", color=LOCAL, markersize=6)
    middle = np.sort(steps, axis=-1)[:, steps.shape[-1] // 2]
    known = np.isfinite(middle)
    if known.any():
        product = np.exp(np.mean(np.log(rates[known] * middle[known])))
        axes.plot(rates, product / rates, "--", color=LIMIT, linewidth=1.2, label=f"rate x steps = {product:.2g}")
        axes.plot(rates[known], middle[known], "o-", color=GROUPS[0], label="median over seeds")
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.minorticks_off()
    finish(
        axes,
        "constant learning rate of AdamW",
        "steps to escape the unigram solution",
        title,
        "best" if known.any() else None,
    )


def success_bars(axes: Axes, rows: Sequence[str], success: Mapping[str, ArrayLike], title: str) -> None:
    """Shares of successful seeds as bars: a group per row and in it a bar per name, in the colours of `success_curves`.

    The legend is below the axes. Give the figure the layout `"constrained"`, which makes room for it.

    **Arguments:** the axes; the names of the rows; per name its shares `[rows]`; the title.
    """
    places, width = np.arange(len(rows)), 0.8 / len(success)
    for index, (colour, (name, share)) in enumerate(zip(colours(len(success)), success.items(), strict=True)):
        shift = (index - (len(success) - 1) / 2) * width
        # A bar of height 0 stays visible.
        axes.bar(places + shift, np.maximum(share, 0.01), 0.92 * width, color=colour, label=name)
    axes.set_xticks(places, rows)
    axes.set_ylim(0, 1.06)
    finish(axes, "", "share of seeds at the bigram solution", title, legend="below", columns=2)


def excess_curves(axes: Axes, curves: Mapping[str, tuple[ArrayLike, ArrayLike]], title: str) -> None:
    """Median excess against width, a curve per name. The legend is below the axes, as that of `success_bars`.

    **Arguments:** the axes; per name its widths and excesses; the title.
    """
    _nested(axes, curves)
    axes.set_xscale("log", base=2)
    # The curves lie between 0 and 1, but for seeds that end above the unigram minimum.
    axes.set_ylim(-0.06, 1.06 * max(1.0, *(float(np.max(excess)) for _, excess in curves.values())))
    labels = "neurons (of fixed embeddings: and heads, M)", "median excess (0 bigram, 1 unigram)"
    finish(axes, *labels, title, legend="below")


def _nested(axes: Axes, curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> None:
    """Curves from thick to thin, so that all of them show where they coincide."""
    widths = np.linspace(6, 1.4, len(curves)) if len(curves) > 1 else [1.4]
    for colour, width, (name, (x, y)) in zip(colours(len(curves)), widths, curves.items(), strict=True):
        axes.plot(x, y, color=colour, marker="o", markersize=width + 2.5, linewidth=width, label=name)
