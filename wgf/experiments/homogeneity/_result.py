"""The result of `wgf homogeneity`: its table, arrays and figure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ... import plot
from ...analysis import Lipschitz
from .._failures import of_seeds
from .._result import AbstractResult
from .._table import Table
from ._config import HomogeneityConfig
from ._correlation import Correlation, correlations
from ._trial import CLASSES, Trial

_HEADS = (
    *("encoder", "degrees", "all", "1-hom.", "T", "th.", "worst", "", "mean", "", "kernel"),
    *("risk", "least", "most", "energy", "leaps", ""),
)


@dataclass(frozen=True, repr=False)
class HomogeneityResult(AbstractResult):
    """All encoders of one run of the experiment."""

    config: HomogeneityConfig
    taus: Float[np.ndarray, " saves"]
    trials: tuple[Trial, ...]

    @property
    def bare(self) -> tuple[Trial, ...]:
        """The neurons and the heads, without the blocks."""
        return tuple(trial for trial in self.trials if trial.specimen.group != "block")

    def tables(self) -> tuple[Table, ...]:
        """The table: a row per encoder."""
        rows: list[str | list[str]] = []
        for group in dict.fromkeys(trial.specimen.group for trial in self.trials):
            rows += [f"{group}s", *(_row(trial) for trial in self.trials if trial.specimen.group == group)]
        return (Table(_HEADS, rows, left=(0, 3, 16), notes=self._notes(), gap=1),)

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each encoder with flows that failed."""
        return tuple(line for trial in self.trials for line in of_seeds(trial.label, trial.risk))

    def _notes(self) -> list[str]:
        config = self.config
        return [
            "degrees: of (w_in, w_out) of a neuron, (value, key, query) of a head; all: of all parameters together; -: "
            "none;",
            "1-hom.: parameters in which g is jointly 1-homogeneous; T, th.: growth exponents in T and theta;",
            "worst, mean: Lipschitz constant of the gradient in theta, and its power of distance (0 Lipschitz, -1 a "
            "jump);",
            "kernel: its least eigenvalue / greatest on distinct prompts;",
            f"risk: median of {config.seeds} seeds at tau = {config.horizon:g}, as a share of the null model's, with "
            "least and most (x: failed flows);",
            "energy: difference of the fall of Q and the action of the particles' moves, as a share (worst seed);",
            "leaps: excess of the dissipation along the steps over the fall: steps jump across kinks or steep valleys;",
            f"data {config.data}: B = {config.batch}, N = {config.examples}; L = {config.depth}, M = {config.width}; "
            f"lambda = {config.weight_decay:g}; rho_0 = N(0, {config.scale:g}^2)",
            *self._comparison(),
        ]

    def _comparison(self) -> list[str]:
        """The paper's open question, over the neurons and heads."""
        notes = []
        for name in CLASSES:
            medians = [trial.median for trial in self.bare if trial.homogeneity == name]
            if medians:
                notes.append(
                    f"{name}: {len(medians)} of the neurons and heads, median risk {np.median(medians):.2g} "
                    f"({min(medians):.2g} to {max(medians):.2g})"
                )
        return [*notes, *map(str, self.correlations())]

    def correlations(self) -> list[Correlation]:
        """Rank correlations of the final risk with the measured properties."""
        return correlations(self.trials)

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`: leading axis `[encoder]`, then `[seeds, saves]`."""
        found = [trial.assumptions for trial in self.trials]
        return {
            "encoders": np.array([trial.label for trial in self.trials]),
            "classes": np.array([trial.homogeneity for trial in self.trials]),
            "taus": self.taus,
            "risk": np.stack([trial.risk for trial in self.trials]),
            "violation": np.stack([trial.violation for trial in self.trials]),
            "excess": np.stack([trial.excess for trial in self.trials]),
            "joint": np.array([np.nan if f.joint is None else f.joint for f in found]),
            "growth": np.array([[f.token_growth, f.particle_growth] for f in found]),
            "lipschitz": np.array([[f.worst, f.mean] for f in found]),
            "least_eigenvalue": np.array([f.least_eigenvalue for f in found]),
        }

    def figure(self) -> Figure:
        """Final risks of all encoders, risk along training, and risk against the kernel's least eigenvalue."""
        figure = Figure(figsize=(12.5, 6.2), layout="constrained")
        panels: Any = figure.subplot_mosaic([["all", "along"], ["all", "kernel"]], width_ratios=(1.15, 1))
        plot.strips(
            panels["all"],
            [trial.label for trial in self.trials],
            [trial.final for trial in self.trials],
            _kinds(self.trials),
            CLASSES,
            f"risk / null risk at τ = {self.config.horizon:g}",
            "What the flow reaches (dots: seeds, bars: medians)",
        )
        medians = [np.median(trial.risk[:, 1:], axis=0) for trial in self.bare]
        plot.kind_curves(
            panels["along"], self.taus[1:], medians, _kinds(self.bare), "Neurons and heads: medians along training"
        )
        shown = [trial for trial in self.bare if np.isfinite(trial.median)]
        plot.kind_points(
            panels["kernel"],
            np.array([max(trial.assumptions.least_eigenvalue, 1e-12) for trial in shown]),
            np.array([trial.median for trial in shown]),
            [trial.specimen.name + " head" * (trial.specimen.group == "head") for trial in shown],
            _kinds(shown),
            ("kernel's least eigenvalue / greatest (1e-12: rounding)", "final risk / null risk"),
        )
        return figure


def _kinds(trials: Iterable[Trial]) -> list[int]:
    return [CLASSES.index(trial.homogeneity) for trial in trials]


def _row(trial: Trial) -> list[str]:
    found, final, finished = trial.assumptions, trial.final, trial.finished
    least, most = (f"{fold(final):.1e}" if finished.any() else "-" for fold in (np.nanmin, np.nanmax))
    return [
        trial.specimen.name,
        " ".join(_degree(k) for k in found.homogeneity.values()),
        _degree(found.joint),
        _leaves(found.partial),
        f"{found.token_growth:.1f}",
        f"{found.particle_growth:.1f}",
        *_lipschitz(found.worst),
        *_lipschitz(found.mean),
        f"{found.least_eigenvalue:.0e}",
        f"{trial.median:.1e}",
        least,
        most,
        f"{trial.violation.max():.0e}",
        f"{max(0, trial.excess.max()):.0e}",
        "" if finished.all() else f"x{(~finished).sum()}",
    ]


def _degree(degree: float | None) -> str:
    return "-" if degree is None else f"{degree:g}"


def _leaves(names: tuple[str, ...]) -> str:
    """The leaf names, without the names of a block's halves, shortened."""
    return "+".join(name.split(".")[-1].replace("value", "V").replace("w_", "") for name in names) or "-"


def _lipschitz(found: Lipschitz) -> tuple[str, str]:
    return f"{found.constant:.2g}", f"{found.exponent:.2f}"
