"""Finite models against the PDE: curves against training time, and clouds of particles."""

import itertools
from collections.abc import Mapping

import numpy as np
from jaxtyping import ArrayLike
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from ._style import CLOUD, LIMIT, colours, distinct, finish


def risk_curves(
    axes: Axes,
    taus: ArrayLike,
    finite: Mapping[str, ArrayLike],
    limit: ArrayLike,
    interval: tuple[ArrayLike, ArrayLike] | None = None,
) -> None:
    """Risk against training time: a coloured curve per finite model, the limit in black, its error band if any.

    **Arguments:** the axes; the times `[saves]`; per finite model its name with its risks `[saves]`; the limit's risks
    `[saves]`, and the ends of their confidence interval, `[saves]` each, or None.
    """
    if interval is not None:
        axes.fill_between(taus, *interval, color=LIMIT, alpha=0.2, linewidth=0, label="95 % interval of the PDE")
    for colour, (name, risk) in zip(colours(len(finite)), finite.items(), strict=True):
        axes.plot(taus, risk, color=colour, marker="o", markersize=3.5, linewidth=1.4, label=name)
    axes.plot(taus, limit, color=LIMIT, linestyle="--", linewidth=1.8, label="PDE (limit)")
    finish(axes, "training time τ", "risk R", "Risk: finite models against the PDE")


def gap_curves(
    axes: Axes,
    taus: ArrayLike,
    gaps: Mapping[str, ArrayLike],
    label: str,
    noise: ArrayLike | None = None,
    resolved: Mapping[str, ArrayLike] | None = None,
    errors: Mapping[str, ArrayLike] | None = None,
    *,
    legend: str = "above",
) -> None:
    """A gap against training time on a log scale: a coloured curve per size, and the limit's own error in black.

    Points that may be the limit's own noise are hollow. Zeros are left out.

    **Arguments:** the axes; the times `[saves]`; per size its name with its gaps `[saves]`; the label of the gap; its
    noise `[saves]`; per size its name with whether each point is resolved, `[saves]`; per size its name with the
    standard errors `[saves]`, drawn as bars; the place of the legend: `"above"` the data, `"below"` the axes, or one of
    Matplotlib's.
    """
    for colour, (name, gap) in zip(colours(len(gaps)), gaps.items(), strict=True):
        shown = np.where(np.asarray(gap) > 0, gap, np.nan)
        hollow = np.zeros(len(shown), bool) if resolved is None else ~np.asarray(resolved[name])
        bars = None if errors is None else _bars(shown, errors[name])
        axes.errorbar(
            taus, shown, bars, color=colour, marker="o", markersize=3.5, linewidth=1.4, elinewidth=0.8, label=name
        )
        axes.plot(taus, np.where(hollow, shown, np.nan), "o", color=colour, markersize=3.5, markerfacecolor="white")
    axes.set_yscale("log")
    bottom, top = axes.get_ylim()
    if noise is not None and 0 < (last := np.asarray(noise)[-1]) < bottom:
        # Show the noise where it is largest. Its start may be as small as a rounding error.
        bottom = last / 2
    axes.set_ylim(bottom, top)
    if noise is not None:
        axes.plot(taus, noise, color=LIMIT, linestyle="--", linewidth=1.4, label="PDE's own error", scaley=False)
        axes.plot([], [], "o", color=LIMIT, markersize=3.5, markerfacecolor="white", label="may be that error")
    finish(axes, "training time τ", label, f"{label[0].upper()}{label[1:]} to the PDE", legend, columns=2)


def _bars(values: np.ndarray, errors: ArrayLike) -> np.ndarray:
    """Bars of one standard error, `[2, points]`, which stay above zero."""
    errors = np.asarray(errors)
    return np.stack([np.minimum(errors, 0.9 * values), errors])


def signed_gap_curves(
    axes: Axes,
    taus: ArrayLike,
    gaps: Mapping[str, ArrayLike],
    label: str,
    errors: Mapping[str, ArrayLike],
    noise: ArrayLike,
    title: str,
    *,
    legend: str = "above",
) -> None:
    """A gap of either sign against training time: a coloured curve per size with bars, the limit's error around zero.

    **Arguments:** the axes; the times `[saves]`; per size its name with its gaps `[saves]`; the label of the gap; per
    size its name with the standard errors `[saves]`; the half width of the band in which a gap may be the limit's own
    error, `[saves]`; the title; the place of the legend, as in [`wgf.plot.gap_curves`][].
    """
    noise = np.asarray(noise)
    axes.fill_between(taus, -noise, noise, color=LIMIT, alpha=0.2, linewidth=0, label="may be the PDE's own error")
    for colour, (name, gap) in zip(colours(len(gaps)), gaps.items(), strict=True):
        axes.errorbar(
            taus, gap, errors[name], color=colour, marker="o", markersize=3.5, linewidth=1.4, elinewidth=0.8, label=name
        )
    finish(axes, "training time τ", label, title, legend, columns=2 if legend == "below" else 1)


def distance_laws(
    axes: Axes,
    counts: ArrayLike,
    groups: Mapping[str, tuple[ArrayLike, ArrayLike | None, float]],
    title: str,
    *,
    legend: str = "above",
) -> None:
    """Distances against the number of particles on log scales, a colour per distance.

    Points are root mean squares over seeds with bars of one standard error, dashed lines are fits, and dotted lines the
    limit's own error.

    **Arguments:** the axes; the numbers of particles `[sizes]`; per distance its name with its values
    `[sizes, seeds]`, the fit `[sizes]` or None, and the limit's own error; the title; the place of the legend, as in
    [`wgf.plot.gap_curves`][].
    """
    marks = itertools.cycle(("o", "s", "^", "D"))
    for colour, mark, (name, (values, line, noise)) in zip(distinct(len(groups)), marks, groups.items(), strict=False):
        squares = np.asarray(values) ** 2
        middle = np.sqrt(squares.mean(axis=1))
        error = squares.std(axis=1, ddof=1) / np.sqrt(squares.shape[1]) / (2 * middle)
        axes.errorbar(
            counts, middle, _bars(middle, error), color=colour, fmt=mark, markersize=4, elinewidth=0.8, label=name
        )
        if line is not None:
            axes.plot(counts, line, color=colour, linestyle="--", linewidth=1.2)
        axes.axhline(noise, color=colour, linestyle=":", linewidth=1.2)
    axes.plot([], [], color=LIMIT, linestyle=":", linewidth=1.2, label="PDE's own error")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(counts, [f"{count:g}" for count in np.asarray(counts)])
    axes.xaxis.set_minor_formatter(NullFormatter())
    finish(axes, "particles L·M", "distance of particles", title, legend, columns=2 if legend == "below" else 1)


def clouds(axes: Axes, limit: ArrayLike, finite: ArrayLike, labels: tuple[str, str], title: str) -> None:
    """Two coordinates of the particles at one depth: the limit in grey, and a finite model in colour on top.

    **Arguments:** the axes; the points `[n, 2]` of the limit and of the finite model; the names of the coordinates; the
    title.
    """
    # The more particles the limit has, the fainter they are, so that they do not hide those on top.
    faint = min(0.55, (256 / len(np.asarray(limit))) ** 0.5)
    own = colours(1)[0]
    for points, colour, size, alpha, name in ((limit, CLOUD, 6, faint, "PDE"), (finite, own, 14, 0.85, "finite model")):
        x, y = np.asarray(points).T
        axes.scatter(x, y, s=size, color=colour, alpha=alpha, linewidths=0)
        axes.scatter([], [], s=14, color=colour, linewidths=0, label=name)  # A legend that is not faint.
    finish(axes, labels[0], labels[1], title)
