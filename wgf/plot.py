"""Drawing of plain results on given axes. Nothing is computed here."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

_LIMIT = "black"
_CLOUD = "#8a8a8a"
_GLOBAL = "#2a7f62"
_LOCAL = "#c0392b"
_GROUPS = ("#31688e", "#d1495b", "#2a7f62", "#e08e2b")
_KINDS = (*_GROUPS[1::-1], _LIMIT)


def risk_curves(
    axes: Axes,
    taus: ArrayLike,
    finite: Mapping[str, ArrayLike],
    limit: ArrayLike,
    interval: tuple[ArrayLike, ArrayLike],
) -> None:
    """Risk against training time: a coloured curve for each finite model, the limit in black within its error band.

    **Arguments:** axes; the times `[saves]`; for each name risks `[saves]`; the limit's risks `[saves]`, and the ends
    of their confidence interval, `[saves]` each.
    """
    axes.fill_between(taus, *interval, color=_LIMIT, alpha=0.2, linewidth=0, label="95 % interval of the PDE")
    for colour, (name, risk) in zip(_colours(len(finite)), finite.items(), strict=True):
        axes.plot(taus, risk, color=colour, marker="o", markersize=3.5, linewidth=1.4, label=name)
    axes.plot(taus, limit, color=_LIMIT, linestyle="--", linewidth=1.8, label="PDE (limit)")
    _finish(axes, "training time τ", "risk R", "Risk: finite models against the PDE")


def gap_curves(
    axes: Axes,
    taus: ArrayLike,
    gaps: Mapping[str, ArrayLike],
    label: str,
    noise: ArrayLike | None = None,
    resolved: Mapping[str, ArrayLike] | None = None,
) -> None:
    """A gap against training time on a log scale, one coloured curve for each size, beside the limit's own error.

    Points that may be the limit's own noise are hollow. Zeros are left out.

    **Arguments:** axes; the times `[saves]`; for each name gaps `[saves]`; the gap's name; the noise in it, `[saves]`;
    for each name which points are resolved, `[saves]`.
    """
    for colour, (name, gap) in zip(_colours(len(gaps)), gaps.items(), strict=True):
        shown = np.where(np.asarray(gap) > 0, gap, np.nan)
        hollow = np.zeros(len(shown), bool) if resolved is None else ~np.asarray(resolved[name])
        axes.plot(taus, shown, color=colour, marker="o", markersize=3.5, linewidth=1.4, label=name)
        axes.plot(taus, np.where(hollow, shown, np.nan), "o", color=colour, markersize=3.5, markerfacecolor="white")
    axes.set_yscale("log")
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top * (top / bottom) ** 0.35)  # room for the legend
    if noise is not None:
        # Drawn last, so that a limit which starts exact, but for rounding, does not stretch the axis.
        axes.plot(taus, noise, color=_LIMIT, linestyle="--", linewidth=1.4, label="PDE's own error", scaley=False)
        axes.plot([], [], "o", color=_LIMIT, markersize=3.5, markerfacecolor="white", label="may be that error")
    _finish(axes, "training time τ", label, f"{label[0].upper()}{label[1:]} to the PDE", columns=2)


def clouds(axes: Axes, limit: ArrayLike, finite: ArrayLike, labels: tuple[str, str], title: str) -> None:
    """Two coordinates of the particles at one depth: the limit in grey, a finite model in colour on top.

    **Arguments:** axes; points `[n, 2]` of the limit and of the finite model; the coordinates' names; the title.
    """
    for points, colour, size, name in ((limit, _CLOUD, 6, "PDE"), (finite, _colours(1)[0], 12, "finite model")):
        x, y = np.asarray(points).T
        axes.scatter(x, y, s=size, color=colour, alpha=0.55, linewidths=0, label=name)
    _finish(axes, labels[0], labels[1], title)


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

    **Arguments:** axes; the grid of both axes `[points]`; the invariant on it, `[e, w]`; the paths' w and e
    `[paths, saves]` and whether each ends in a global minimum; the border as points (e, w); |e| of the global minima
    and e of the bad ones at each w of the grid, NaN where there are none; the title; whether to draw a legend.
    """
    axes.contour(side, side, level, levels=np.arange(-9, 10, 1.5), colors="#b9c4cc", linewidths=0.6, linestyles="-")
    w, e, ends_best = paths
    colours = np.where(ends_best, _GLOBAL, _LOCAL)
    for x, y, colour in zip(w, e, colours, strict=True):
        axes.plot(x, y, color=colour, linewidth=0.5, alpha=0.55)
    axes.scatter(w[:, 0], e[:, 0], s=3, color=colours, linewidths=0)
    for sign in (1, -1):
        axes.plot(side, sign * best, color=_GLOBAL, linewidth=2.2, label="global minima" if sign > 0 else None)
    axes.plot(side, bad, color=_LOCAL, linewidth=3, label="bad local minima")
    axes.plot(separatrix[:, 1], separatrix[:, 0], color=_LIMIT, linewidth=1.2, linestyle="--", label="border of basins")
    limit = float(np.max(side))
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    _finish(axes, "w", "e", title, legend=None)
    if legend:
        axes.legend(fontsize=7, loc="upper left", framealpha=0.9)


def success_curves(
    axes: Axes, scales: ArrayLike, success: Mapping[str, ArrayLike], labels: tuple[str, str], title: str
) -> None:
    """Shares of successful seeds against a scale, one curve for each name.

    **Arguments:** axes; the scales `[n]`; for each name shares `[n]`; the labels of both axes; the title.
    """
    _nested(axes, {name: (scales, share) for name, share in success.items()})
    axes.set_xscale("log")
    ticks = np.asarray(scales)
    axes.set_xticks(ticks, [f"{scale:g}" for scale in ticks])
    axes.minorticks_off()
    axes.set_ylim(-0.06, 1.06)
    _finish(axes, *labels, title)


def success_bars(axes: Axes, rows: Sequence[str], success: Mapping[str, ArrayLike], title: str) -> None:
    """Shares of successful seeds in groups of bars: a group for each row, a bar for each name, as in `success_curves`.

    **Arguments:** axes; the rows' names; for each name shares `[rows]`; the title.
    """
    places, width = np.arange(len(rows)), 0.8 / len(success)
    for index, (colour, (name, share)) in enumerate(zip(_colours(len(success)), success.items(), strict=True)):
        shift = (index - (len(success) - 1) / 2) * width
        # A bar of height 0 shall still be seen.
        axes.bar(places + shift, np.maximum(share, 0.01), 0.92 * width, color=colour, label=name)
    axes.set_xticks(places, rows)
    axes.set_ylim(0, 1.06)
    _finish(axes, "", "share of seeds at the bigram solution", title, legend=None)


def excess_curves(axes: Axes, curves: Mapping[str, tuple[ArrayLike, ArrayLike]], title: str) -> None:
    """Median excess against width, one curve for each name.

    **Arguments:** axes; for each name the widths and the excesses; the title.
    """
    _nested(axes, curves)
    axes.set_xscale("log", base=2)
    axes.set_ylim(-0.06, 1.6)
    _finish(
        axes,
        "neurons (of fixed embeddings: and heads, M)",
        "median excess (0 bigram, 1 unigram)",
        title,
        legend="upper right",
    )


def _nested(axes: Axes, curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> None:
    """Curves from thick to thin, so that those beneath show where curves coincide."""
    widths = np.linspace(6, 1.4, len(curves)) if len(curves) > 1 else [1.4]
    for colour, width, (name, (x, y)) in zip(_colours(len(curves)), widths, curves.items(), strict=True):
        axes.plot(x, y, color=colour, marker="o", markersize=width + 2.5, linewidth=width, label=name)


def bundles(axes: Axes, groups: Mapping[str, tuple[ArrayLike, ArrayLike]], x: str, y: str, title: str) -> None:
    """Bundles of curves on a log scale: a thin line for each seed, a colour for each group.

    **Arguments:** axes; for each name abscissae and ordinates `[seeds, points]`; the axes' names; the title.
    """
    for colour, (name, (xs, ys)) in zip(_GROUPS, groups.items(), strict=False):
        lines = axes.plot(np.asarray(xs).T, np.asarray(ys).T, color=colour, linewidth=0.9, alpha=0.6)
        lines[0].set_label(name)
    axes.set_yscale("log")
    _finish(axes, x, y, title)


def learning_curves(
    axes: Axes,
    epochs: ArrayLike,
    groups: Mapping[str, tuple[ArrayLike, ArrayLike]],
    y: str,
    title: str,
    *,
    log: bool = False,
) -> None:
    """Means over seeds, solid on training data and dashed on held-out data; the training data's range is shaded.

    **Arguments:** axes; the epochs `[saves]`; for each name the values on both, `[seeds, saves]`; the axis's name; the
    title; whether the values are on a log scale.
    """
    for colour, (name, (train, held_out)) in zip(_colours(len(groups)), groups.items(), strict=True):
        train, held_out = np.asarray(train), np.asarray(held_out)
        axes.fill_between(epochs, train.min(axis=0), train.max(axis=0), color=colour, alpha=0.15, linewidth=0)
        axes.plot(epochs, train.mean(axis=0), color=colour, linewidth=1.6, label=name)
        axes.plot(epochs, held_out.mean(axis=0), color=colour, linewidth=1.1, linestyle="--")
    axes.plot([], [], color=_LIMIT, linewidth=1.6, label="training")
    axes.plot([], [], color=_LIMIT, linewidth=1.1, linestyle="--", label="held out")
    if log:
        axes.set_yscale("log")
    _finish(axes, "epoch", y, title)


def ranges(axes: Axes, groups: Mapping[str, tuple[ArrayLike, ArrayLike]], x: str, y: str, title: str) -> None:
    """Medians and ranges of seeds on log scales: the first half of the groups solid, the second dashed.

    **Arguments:** axes; for each name abscissae `[points]` and ordinates `[points, seeds]`; names; the title.
    """
    for (name, (xs, ys)), (colour, dash) in zip(groups.items(), _families(len(groups)), strict=True):
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
    _finish(axes, x, y, title)


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
    for colour, mark, (name, (xs, ys, line)) in zip(_colours(len(groups)), marks, groups.items(), strict=False):
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
    _finish(axes, *labels, title)


def families(axes: Axes, groups: Mapping[str, tuple[ArrayLike, ArrayLike]], x: str, y: str, title: str) -> None:
    """Curves on a log scale: the first half of the groups solid, the second dashed, in the same colours.

    **Arguments:** axes; for each name abscissae and ordinates `[points]`; the axes' names; the title.
    """
    for (name, (xs, ys)), (colour, dash) in zip(groups.items(), _families(len(groups)), strict=True):
        axes.plot(xs, ys, color=colour, linestyle=dash, marker="o", markersize=3, linewidth=1.3, label=name)
        if np.issubdtype(np.asarray(xs).dtype, np.integer):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_yscale("log")
    _finish(axes, x, y, title)


def power_laws(
    axes: Axes,
    groups: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]],
    labels: tuple[str, str],
    title: str,
) -> None:
    """Points on log scales, a colour for each group, and a fitted line through each.

    **Arguments:** axes; for each name points `[count]`, `[count]` and the line's ends `[2]`, `[2]`; names; the title.
    """
    for colour, (name, (xs, ys, line_x, line_y)) in zip(_GROUPS, groups.items(), strict=False):
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
    _finish(axes, *labels, title)


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
    for colour, (name, (xs, ys, rest)) in zip([*_colours(len(curves) - 1), _LOCAL], curves.items(), strict=True):
        ys, hollow = np.asarray(ys), ~np.asarray(rest)
        axes.plot(xs, ys, color=colour, marker="o", markersize=5, linewidth=1.3, label=name)
        axes.plot(xs, np.where(hollow, ys, np.nan), "o", color=colour, markersize=5, markerfacecolor="white")
    axes.plot([], [], "o", color=_CLOUD, markersize=5, markerfacecolor="white", label="stopped, not at rest")
    if guide is not None:
        axes.plot(guide[1], guide[2], color=_CLOUD, linestyle="--", linewidth=1.2, label=guide[0])
    axes.set_xscale("log")
    axes.set_yscale("log")
    _finish(axes, *labels, title)


def strips(
    axes: Axes,
    names: Sequence[str],
    values: Sequence[ArrayLike],
    kinds: Sequence[int],
    legend: Sequence[str],
    label: str,
    title: str,
) -> None:
    """Dots of seeds in a row for each name, on a log scale, with a bar at the median; a colour for each kind.

    **Arguments:** axes; the names; for each its values `[seeds]` and kind (0, 1 or 2); what each kind is; the values'
    name; the title.
    """
    for row, (seeds, kind) in enumerate(zip(values, kinds, strict=True)):
        seeds = np.asarray(seeds)
        axes.plot(seeds, np.full(seeds.shape, row), "o", color=_KINDS[kind], markersize=4, alpha=0.6)
        axes.plot(np.median(seeds), row, "|", color=_KINDS[kind], markersize=13, markeredgewidth=2.4)
    for colour, kind in zip(_KINDS, legend, strict=True):
        axes.plot([], [], "o", color=colour, label=kind)
    axes.set_xscale("log")
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    _finish(axes, label, "", title)


def kind_curves(axes: Axes, taus: ArrayLike, risks: Sequence[ArrayLike], kinds: Sequence[int], title: str) -> None:
    """Relative risks along training on log scales, coloured as in `strips`.

    **Arguments:** axes; the times `[saves]`; risks `[saves]` and the kind of each; the title.
    """
    for risk, kind in zip(risks, kinds, strict=True):
        axes.plot(taus, risk, color=_KINDS[kind], linewidth=1.2, alpha=0.85)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _finish(axes, "training time τ", "risk / null risk", title, legend=None)


def kind_points(
    axes: Axes, x: ArrayLike, y: ArrayLike, names: Sequence[str], kinds: Sequence[int], labels: tuple[str, str]
) -> None:
    """Named points on log scales, coloured as in `strips`.

    **Arguments:** axes; abscissae and ordinates `[points]`; the name and kind of each; the axes' names.
    """
    order = np.argsort(np.argsort(y))
    for px, py, name, kind, rank in zip(np.asarray(x), np.asarray(y), names, kinds, order, strict=True):
        axes.plot(px, py, "o", color=_KINDS[kind], markersize=5)
        # To the left and to the right in turn, from the lowest point up: near ones keep their names apart.
        side = 1 if rank % 2 else -1
        axes.annotate(
            name,
            (px, py),
            xytext=(5 * side, 3 * side - 2),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            fontsize=7,
            color=_KINDS[kind],
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.12, y=0.12)
    _finish(axes, *labels, "", legend=None)


def prediction(axes: Axes, x: ArrayLike, y: ArrayLike, name: str, title: str) -> None:
    """A prediction in black over measured points, and the title of both.

    **Arguments:** axes that hold the points; the line's points, `[count]` each; its name; the title.
    """
    axes.plot(x, y, color=_LIMIT, linewidth=1.2, label=name)
    axes.set_title(title, fontsize=11)
    axes.legend(fontsize=8, frameon=False)


def courses(
    axes: Axes,
    groups: Mapping[str, tuple[ArrayLike, ArrayLike]],
    labels: tuple[str, str],
    title: str,
    *,
    backwards: bool = False,
) -> None:
    """Curves on a log scale, a colour for each name.

    **Arguments:** axes; for each name abscissae and ordinates `[points]`; the axes' names; the title; whether the
    abscissa falls to the right on a log scale, as a risk does.
    """
    for colour, (name, (x, y)) in zip(_GROUPS, groups.items(), strict=False):
        shown = np.where(np.asarray(y) > 0, y, np.nan)
        axes.plot(x, shown, color=colour, marker="o", markersize=2.5, linewidth=1.3, label=name)
    axes.set_yscale("log")
    if backwards:
        axes.set_xscale("log")
        axes.invert_xaxis()
    _finish(axes, *labels, title)


def _families(count: int) -> list:
    half = count // 2
    return [(colour, dash) for dash in ("-", "--") for colour in _colours(half)]


def _colours(count: int) -> list:
    return [colormaps["viridis"](place) for place in np.linspace(0.05, 0.85, count)[::-1]]


def _finish(axes: Axes, x: str, y: str, title: str, legend: Any = "best", columns: int = 1) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if legend is not None:
        axes.legend(fontsize=8, frameon=False, loc=legend, ncols=columns)
