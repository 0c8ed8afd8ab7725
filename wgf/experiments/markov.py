"""The first companion system: Transformers on Markov data, local minima against global ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from .. import plot
from .._checks import at_least
from ..companions import CanonicalRisk
from ._markov_portrait import SIDE, Portrait, portrait
from ._markov_training import Trained, train_initialisations, train_mean_field, train_rates, train_widths
from ._progress import Stages
from ._seed import check_seed


@dataclass(frozen=True)
class MarkovConfig:
    """Flow the canonical model of binary Markov data from a grid of starts; train one-layer and mean-field Transformers
    from many seeds, and count which found the bigram solution.
    """

    chains: tuple[tuple[float, float], ...] = ((0.1, 0.1), (0.2, 0.5), (0.7, 0.9), (0.9, 0.9))
    """The chains, as pairs of switching probabilities P(1|0) and P(0|1)."""
    grid: int = 25
    """Starts of the canonical model along each axis of [-3, 3]^2."""
    tau: float = 2000.0
    """The training time that the canonical model's flow may take."""
    scales: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.5)
    """Standard deviations of the standard initialisation."""
    seeds: int = 12
    """Seeds of every initialisation."""
    steps: int = 1000
    """AdamW steps of the one-layer Transformer."""
    batch: int = 32
    """Sequences drawn anew for each step."""
    length: int = 32
    """Next-token predictions in a sequence."""
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3, 8e-3)
    """AdamW's learning rates, where the rate is varied (else 2e-3)."""
    widths: tuple[int, ...] = (4, 16, 64, 256)
    """Neurons of the feed-forward layer, where its width is varied."""
    particles: tuple[int, ...] = (1, 4, 16)
    """Heads and neurons M of the mean-field Transformer."""
    hard: tuple[float, float] = (0.9, 0.9)
    """The chain of the runs that vary learning rate and width."""
    seed: int = 0
    """The seed of every random draw."""
    quick: bool = False
    """A size that takes seconds: fewer starts, chains, scales, widths, seeds and steps, unless these are given."""
    out: Path | None = None
    """The results folder; by default a new one under results/."""

    @classmethod
    def quick_default(cls) -> "MarkovConfig":
        """The defaults of `--quick`."""
        return cls(
            chains=((0.1, 0.1), (0.9, 0.9)),
            grid=13,
            scales=(0.02, 0.2),
            seeds=4,
            steps=400,
            length=16,
            rates=(4e-3,),
            widths=(256,),
            particles=(4,),
            quick=True,
        )


@dataclass(frozen=True)
class MarkovResult:
    """Portraits of the canonical model, and where the trained Transformers ended."""

    config: MarkovConfig
    portraits: tuple[Portrait, ...]
    initialisations: Trained
    rates: Trained
    widths: Trained
    mean_field: Trained

    def table(self) -> str:
        """The tables that the command prints: the canonical model, then the trained ones."""
        rule = "-" * len(Portrait.HEAD)
        found = "seeds that found the bigram solution, and the median excess (1: the unigram minimum)"
        return "\n".join(
            [
                Portrait.HEAD,
                rule,
                *(p.row() for p in self.portraits),
                rule,
                "global, local: trajectories that end within 1e-6 nats of the entropy rate, of the entropy of pi;",
                "resting: starts on e = 0; near: within 0.02 of the saddle's level set; missed: not where that says",
                "",
                f"One-layer Transformer, AdamW: {found}",
                *self.initialisations.table(),
                "",
                f"Learning rate and width: {found}",
                *self.rates.table(),
                *self.widths.table()[1:],
                *self.mean_field.table()[1:],
            ]
        )

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`."""
        kept = {
            f"canonical_{p.p:g}_{p.q:g}_{name}": array for p in self.portraits for name, array in p.arrays().items()
        }
        for name in ("initialisations", "rates", "widths", "mean_field"):
            trained = getattr(self, name)
            kept |= {f"{name}_rows": np.array(trained.rows), f"{name}_excess": trained.excess}
        return {"chains": np.array(self.config.chains), **kept}

    def figure(self) -> Figure:
        """Phase portraits above; success against initialisation and width below."""
        count = max(4, len(self.portraits))
        figure = Figure(figsize=(4.1 * count, 9.4), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=(1.15, 1)).ravel()  # pyright: ignore[reportAttributeAccessIssue]
        panels = above.subplots(1, len(self.portraits), squeeze=False)[0]
        for axes, shown in zip(panels, self.portraits, strict=True):
            _draw_portrait(axes, shown, legend=axes is panels[0])
        scale, init, rate, width = below.subplots(1, 4, width_ratios=(1, 1.2, 1, 1))
        scales, success = self.config.scales, self.initialisations.success
        names = [f"p = {p:g}, q = {q:g}" for p, q in self.config.chains]
        plot.success_curves(
            scale,
            np.array(scales),
            dict(zip(names, success[: len(scales)].T, strict=True)),
            ("standard deviation of the initial weights", "share of seeds at the bigram solution"),
            "One-layer Transformer, tied, AdamW",
        )
        rows = ("rank one,\nin the basin", "rank one,\noutside", "standard 0.02,\nuntied")
        plot.success_bars(
            init,
            rows,
            dict(zip(names, success[len(scales) :].T, strict=True)),
            "The same chains, other initialisations",
        )
        p, q = self.config.hard
        plot.success_curves(
            rate,
            np.array(self.config.rates),
            {f"p = {p:g}, q = {q:g}": self.rates.success[:, 0]},
            ("learning rate of AdamW", "share of seeds at the bigram solution"),
            "Standard initialisation, scale 0.02, tied",
        )
        self._draw_widths(width)
        return figure

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
            f"Width, p = {p:g}, q = {q:g}",
        )


def run(config: MarkovConfig, *, show_progress: bool | None = None) -> MarkovResult:
    """Run all parts: portraits, initialisations, learning rates, widths.

    **Arguments:**

    - `config`: [`wgf.experiments.MarkovConfig`][].
    - `show_progress`: whether to draw a progress bar; None for one where standard error is a terminal.

    **Returns:** [`wgf.experiments.MarkovResult`][].

    **Raises:** `ValueError` naming the option that cannot be used, before anything is compiled.
    """
    _check(config)
    init_key, width_key, field_key = jax.random.split(jax.random.key(config.seed), 3)
    common: Any = {"seeds": config.seeds, "steps": config.steps, "batch": config.batch}

    def starts(_):
        return train_initialisations(init_key, config.chains, config.scales, length=config.length, **common)

    def rates(_):
        return train_rates(width_key, config.hard, config.rates, length=config.length, **common)

    def widths(_):
        return train_widths(width_key, config.hard, config.widths, length=config.length, tau=200.0, **common)

    def mean_field(_):
        return train_mean_field(field_key, config.hard, config.particles, (0.02, 0.5), length=16, **common)

    parts = {"initialisations": starts, "widths": widths, "mean field": mean_field, "learning rates": rates}
    # One program is compiled while another runs.
    with Stages(len(config.chains) + len(parts), show_progress, at_once=2) as stages:
        trained = {name: stages.start(name, part) for name, part in parts.items()}
        portraits = [
            stages.start(f"canonical model, p = {p:g}, q = {q:g}", _portrait, config, p, q) for p, q in config.chains
        ]
        return MarkovResult(
            config,
            tuple(each.result() for each in portraits),
            initialisations=trained["initialisations"].result(),
            rates=trained["learning rates"].result(),
            widths=trained["widths"].result(),
            mean_field=trained["mean field"].result(),
        )


def _portrait(_, config: MarkovConfig, p: float, q: float) -> Portrait:
    return portrait(p, q, config.grid, config.tau)


def _check(config: MarkovConfig) -> None:
    check_seed(config.seed)
    if not config.chains or any(p + q == 1 for p, q in (*config.chains, config.hard)):
        raise ValueError(
            "`chains` must be pairs (p, q), at least one, with p + q other than 1 (independent symbols: no gap to "
            f"close); got {config.chains} and `hard` {config.hard}."
        )
    for p, q in (*config.chains, config.hard):
        CanonicalRisk(p, q)
    for name in ("scales", "rates", "widths", "particles"):
        if not getattr(config, name):
            raise ValueError(f"`{name}` must hold at least one number; got none.")
    at_least("grid", config.grid, 2)
    for name in ("seeds", "steps", "batch", "length"):
        at_least(name, getattr(config, name), 1)


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
