"""Curves against training time beside the PDE, and clouds of particles over it."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import ArrayLike
from matplotlib.axes import Axes

from ._style import CLOUD, LIMIT, colours, finish


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
) -> None:
    """A gap against training time on a log scale, one coloured curve for each size, beside the limit's own error.

    Points that may be the limit's own noise are hollow. Zeros are left out.

    **Arguments:** axes; the times `[saves]`; for each name gaps `[saves]`; the gap's name; the noise in it, `[saves]`;
    for each name which points are resolved, `[saves]`.
    """
    for colour, (name, gap) in zip(colours(len(gaps)), gaps.items(), strict=True):
        shown = np.where(np.asarray(gap) > 0, gap, np.nan)
        hollow = np.zeros(len(shown), bool) if resolved is None else ~np.asarray(resolved[name])
        axes.plot(taus, shown, color=colour, marker="o", markersize=3.5, linewidth=1.4, label=name)
        axes.plot(taus, np.where(hollow, shown, np.nan), "o", color=colour, markersize=3.5, markerfacecolor="white")
    axes.set_yscale("log")
    bottom, top = axes.get_ylim()
    if noise is not None and 0 < (last := np.asarray(noise)[-1]) < bottom:
        # In view where it is largest, but no more: it may start at rounding.
        bottom = last / 2
    axes.set_ylim(bottom, top * (top / bottom) ** 0.35)  # room for the legend
    if noise is not None:
        axes.plot(taus, noise, color=LIMIT, linestyle="--", linewidth=1.4, label="PDE's own error", scaley=False)
        axes.plot([], [], "o", color=LIMIT, markersize=3.5, markerfacecolor="white", label="may be that error")
    finish(axes, "training time τ", label, f"{label[0].upper()}{label[1:]} to the PDE", columns=2)


def clouds(axes: Axes, limit: ArrayLike, finite: ArrayLike, labels: tuple[str, str], title: str) -> None:
    """Two coordinates of the particles at one depth: the limit in grey, a finite model in colour on top.

    **Arguments:** axes; points `[n, 2]` of the limit and of the finite model; the coordinates' names; the title.
    """
    # However many the limit has, they must not hide the few on top.
    faint = min(0.55, (256 / len(np.asarray(limit))) ** 0.5)
    own = colours(1)[0]
    for points, colour, size, alpha, name in ((limit, CLOUD, 6, faint, "PDE"), (finite, own, 14, 0.85, "finite model")):
        x, y = np.asarray(points).T
        axes.scatter(x, y, s=size, color=colour, alpha=alpha, linewidths=0, label=name)
    finish(axes, labels[0], labels[1], title)
