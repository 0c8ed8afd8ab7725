"""The result of `wgf markov`: its tables, arrays and figure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ... import plot
from .._result import AbstractResult
from .._table import Table
from ._config import MarkovConfig
from ._escape import ESCAPED, Escapes
from ._portrait import SIDE, Portrait
from ._trained import Trained

_PARTS = ("initialisations", "rates", "widths", "mean_field", "escapes")


@dataclass(frozen=True, repr=False)
class MarkovResult(AbstractResult):
    """Portraits of the canonical model, and the ends of the trained Transformers."""

    config: MarkovConfig
    portraits: tuple[Portrait, ...]
    initialisations: Trained
    rates: Trained
    widths: Trained
    mean_field: Trained
    escapes: Escapes

    def tables(self) -> tuple[Table, ...]:
        """The tables: the canonical model, then the trained ones."""
        found = "seeds that found the bigram solution, and the median excess (1: the unigram minimum)"
        canonical = Table(
            Portrait.HEADS,
            [p.cells() for p in self.portraits],
            keys=2,
            notes=(
                "global, local: trajectories that end within 1e-6 nats of the entropy rate, of the entropy of pi;",
                "resting: starts on e = 0; near: within 0.02 of the saddle's level set; missed: not at the predicted "
                "minimum;",
                "p, q: the probabilities to leave each state; starts: trajectories; steps: the most of any of them;",
                "E drift: the largest change of the conserved E along a trajectory;",
                "Q - rate, Q - H(pi): the largest distance of a last loss from the entropy rate (global), from the "
                "entropy of pi (local)",
            ),
        )
        first = self.initialisations
        starts = Table(first.heads(), first.cells(), (0,), f"One-layer Transformer, AdamW: {found}", gap=4)
        others = [row for part in (self.rates, self.widths, self.mean_field) for row in part.cells()]
        varied = Table(self.rates.heads(), others, (0,), f"Learning rate and width: {found}", gap=4)
        p, q = self.config.hard
        escapes = Table(
            Escapes.HEADS,
            self.escapes.cells(),
            (0,),
            f"Steps to escape the unigram solution of ({p:g}, {q:g}), AdamW at a constant rate",
            notes=(
                "seeds: those that escaped; of steps: the length of the training;",
                f"least, median, most: the steps after which a seed's excess was first below {ESCAPED:g}",
            ),
        )
        return canonical, starts, varied, escapes

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each initialisation and chain with seeds whose training failed."""
        return tuple(line for name in _PARTS for line in getattr(self, name).failures())

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`."""
        kept = {
            f"canonical_{p.p:g}_{p.q:g}_{name}": array for p in self.portraits for name, array in p.arrays().items()
        }
        escapes = self.escapes
        kept |= {"escapes_rates": escapes.rates, "escapes_steps": escapes.steps}
        for name in _PARTS:
            trained = getattr(self, name)
            kept |= {f"{name}_rows": np.array(trained.rows), f"{name}_excess": trained.excess}
        return {"chains": np.array(self.config.chains), **kept}

    def figure(self) -> Figure:
        """Phase portraits above; success against initialisation, steps to escape and the effect of width below."""
        count = max(4, len(self.portraits))
        figure = Figure(figsize=(4.1 * count, 9.4), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=(1.15, 1)).ravel()  # pyright: ignore[reportAttributeAccessIssue]
        panels = above.subplots(1, len(self.portraits), squeeze=False)[0]
        for axes, shown in zip(panels, self.portraits, strict=True):
            _draw_portrait(axes, shown, legend=axes is panels[0])
        scale, init, rate, width = below.subplots(1, 4, width_ratios=(1, 1.2, 1, 1))
        self._draw_initialisations(scale, init)
        self._draw_rates(rate)
        self._draw_widths(width)
        return figure

    def _draw_initialisations(self, scale, init) -> None:
        scales, success = self.config.scales, self.initialisations.success
        names = [f"p = {p:g}, q = {q:g}" for p, q in self.config.chains]
        plot.success_curves(
            scale,
            np.array(scales),
            dict(zip(names, success[: len(scales)].T, strict=True)),
            ("standard deviation of the initial weights", "share of seeds at the bigram solution"),
            "One-layer Transformer, tied, AdamW",
        )
        plot.success_bars(
            init,
            ("rank one,\nin the basin", "rank one,\noutside", "standard 0.02,\nuntied"),
            dict(zip(names, success[len(scales) :].T, strict=True)),
            "The same chains, other initialisations",
        )

    def _draw_rates(self, axes) -> None:
        p, q = self.config.hard
        count = len(self.config.rates)
        plot.escape_steps(
            axes,
            self.escapes.rates[:count],
            self.escapes.first[:count],
            self.escapes.steps[:count, -1],
            f"Escape at a constant rate, p = {p:g}, q = {q:g}",
        )

    def _draw_widths(self, axes) -> None:
        widths, particles = np.array(self.config.widths), np.array(self.config.particles)
        learned = np.median(self.widths.excess[:, 0], axis=-1)
        fixed = np.median(self.mean_field.excess[:, 0], axis=-1).reshape(len(particles), -1)
        p, q = self.config.hard
        plot.excess_curves(
            axes,
            {
                "learned embedding, AdamW": (widths, learned[: len(widths)]),
                "learned embedding, gradient flow": (widths, learned[len(widths) :]),
                "fixed embedding, scale 0.02": (particles, fixed[:, 0]),
                "fixed embedding, scale 0.5": (particles, fixed[:, 1]),
            },
            f"Width, p = {p:g}, q = {q:g}, {self.config.steps:,} steps",
        )


def _draw_portrait(axes, shown: Portrait, legend: bool) -> None:
    side = np.linspace(-SIDE, SIDE, 241)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = side[:, None] ** 2 - side**2 - np.sign(side) * np.log(np.abs(side))
    gain = np.log((1 - shown.p) * (1 - shown.q) / (shown.p * shown.q))
    with np.errstate(divide="ignore", invalid="ignore"):
        best = np.sqrt(gain / (1 + 2 * side * np.abs(side)))
    local = (side < -np.sqrt(0.5)) == (gain > 0)
    plot.phase_portrait(
        axes,
        side,
        level,
        paths=(shown.w, shown.e, shown.to_global),
        separatrix=shown.separatrix,
        best=best,
        bad=np.where(local, 0.0, np.nan),
        title=f"p = {shown.p:g}, q = {shown.q:g}",
        legend=legend,
    )
