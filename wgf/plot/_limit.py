"""Finite models against the PDE: curves against training time, and clouds of particles."""

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
    """Risk against training time: a coloured curve per finite model, and the limit in black with its error band.

    **Arguments:** the axes; the times `[saves]`; per finite model its name with its risks `[saves]`; the limit's risks
    `[saves]`, and the ends of their confidence interval, `[saves]` each.
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
    """A gap against training time on a log scale: a coloured curve per size, and the limit's own error in black.

    Points that may be the limit's own noise are hollow. Zeros are left out.

    **Arguments:** the axes; the times `[saves]`; per size its name with its gaps `[saves]`; the label of the gap; its
    noise `[saves]`; per size its name with whether each point is resolved, `[saves]`.
    """
    for colour, (name, gap) in zip(colours(len(gaps)), gaps.items(), strict=True):
        shown = np.where(np.asarray(gap) > 0, gap, np.nan)
        hollow = np.zeros(len(shown), bool) if resolved is None else ~np.asarray(resolved[name])
        axes.plot(taus, shown, color=colour, marker="o", markersize=3.5, linewidth=1.4, label=name)
        axes.plot(taus, np.where(hollow, shown, np.nan), "o", color=colour, markersize=3.5, markerfacecolor="white")
    axes.set_yscale("log")
    bottom, top = axes.get_ylim()
    if noise is not None and 0 < (last := np.asarray(noise)[-1]) < bottom:
        # Show the noise where it is largest. Its start may be as small as a rounding error.
        bottom = last / 2
    axes.set_ylim(bottom, top * (top / bottom) ** 0.35)  # Room for the legend.
    if noise is not None:
        axes.plot(taus, noise, color=LIMIT, linestyle="--", linewidth=1.4, label="PDE's own error", scaley=False)
        axes.plot([], [], "o", color=LIMIT, markersize=3.5, markerfacecolor="white", label="may be that error")
    finish(axes, "training time τ", label, f"{label[0].upper()}{label[1:]} to the PDE", columns=2)


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
        axes.scatter(x, y, s=size, color=colour, alpha=alpha, linewidths=0, label=name)
    finish(axes, labels[0], labels[1], title)
