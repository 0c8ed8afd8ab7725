"""The result of `wgf rest`: its table, arrays and figure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ... import plot
from .._failures import brief
from .._table import Table, in_text
from ._config import RestConfig
from ._trial import Trial

_HEADS = ("data", "model", "", "tau", "risk", "Q/lambda", "output gap", "gap/Q", "support/Q", "particles", "steps")


@dataclass(frozen=True)
class RestResult:
    """All trials of one run of the experiment."""

    config: RestConfig
    trials: tuple[Trial, ...]

    def find(self, name: str) -> list[Trial]:
        """The trials on one data set: finite models by size, then the PDE."""
        return [trial for trial in self.trials if trial.data == name]

    def limit(self, name: str) -> Trial:
        """The PDE's trial on one data set."""
        return next(trial for trial in self.find(name) if trial.is_limit)

    def table(self) -> str:
        """The table that the command prints: two rows per data set and model."""
        return in_text(self.tables())

    def tables(self) -> tuple[Table, ...]:
        """The tables themselves, cell by cell."""
        rows = [row for name in self.config.data for trial in self.find(name) for row in self._rows(trial)]
        return (Table(_HEADS, rows, left=(0, 1, 2), notes=self._notes()),)

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each trial that failed."""
        return tuple(f"{trial.data}, {trial.name}: {trial.failure}" for trial in self.trials if trial.failure)

    def _rows(self, trial: Trial) -> list[list[str] | str]:
        if trial.failure:
            return [f"{trial.data}  {trial.name}  failed: {brief(trial.failure)}"]
        limit, first, last = self.limit(trial.data), 0, trial.rounds
        tau = trial.taus[-1]
        end = tau + trial.rounds * self.config.round_length / self.config.weight_decay
        at_rest, at_end = _rms(trial.outputs[-1] - limit.outputs[-1]), _rms(trial.end_outputs - limit.end_outputs)
        return [
            self._row(trial, "flow", tau, at_rest, first, trial.steps[0]),
            self._row(trial, f"+ {trial.rounds} rounds", end, at_end, last, trial.steps[1]),
        ]

    def _row(self, trial: Trial, stage: str, tau: float, gap: float, row: int, steps: int) -> list[str]:
        return [
            trial.data,
            trial.name,
            stage,
            f"{tau:.4g}",
            f"{trial.round_risks[row]:.1e}",
            f"{trial.round_objectives[row] / self.config.weight_decay:.4g}",
            "-" if trial.is_limit else f"{gap:.1e}",
            f"{trial.gaps[row]:.1e}",
            f"{trial.lacking[row]:.1e}",
            f"{trial.particles[row]:.3g}",
            f"{steps}",
        ]

    def _notes(self) -> list[str]:
        config = self.config
        motions = [trial.motion for trial in self.trials if not trial.failure]
        moved = f"{max(motions):.1e}" if motions else "-"
        return [
            "risk: share of the null model's; output gap: to the PDE in the same stage, RMS over prompts;",
            "gap: the certificate, least dQ/drho minus its mean (worst depth): 0 at a global minimum of Q;",
            "support: the part of the gap that only new particles can close; particles: of positive weight, per depth;",
            f"rounds: conditional gradient, at most {config.mass:g} of a depth's mass, then {config.round_length:g} / "
            f"lambda of flow, until gap/Q > -{config.tolerance:g};",
            f"motion: the flows lost at most {moved} of Q in their last 1 / lambda of time",
            f"B = {config.batch}, N = {config.examples}; lambda = {config.weight_decay:g}; PDE: 8 stage times x "
            f"{config.width} particles; rho_0 = N(0, {config.scale:g}^2); float64",
        ]

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`: leading axis `[trial]`; those of rounds are padded with NaN."""
        longest = max(len(trial.gaps) for trial in self.trials)
        single = ("data", "failure", "is_limit", "depth", "width", "motion", "steps")
        rounds = ("round_risks", "round_objectives", "gaps", "lacking", "particles")
        curves = ("taus", "risks", "objectives", "outputs", "end_outputs")
        return {
            **{name: np.array([getattr(trial, name) for trial in self.trials]) for name in (*single, *curves)},
            **{name: np.stack([_padded(getattr(trial, name), longest) for trial in self.trials]) for name in rounds},
        }

    def figure(self) -> Figure:
        """A row per data set: the risk to rest, then certificate and Q against the rounds."""
        figure = Figure(figsize=(12.5, 0.4 + 3.5 * len(self.config.data)), layout="constrained")
        grid = figure.subplots(len(self.config.data), 3, squeeze=False)
        for row, name in zip(grid, self.config.data, strict=True):
            self._draw(row, name)
        return figure

    def _draw(self, row, name: str) -> None:
        risk, gap, objective = row
        trials = {trial.name: trial for trial in self.find(name)}
        decay, tolerance = self.config.weight_decay, self.config.tolerance
        curves = {key: (trial.taus, trial.risks) for key, trial in trials.items()}
        plot.courses(risk, curves, ("training time τ", "risk / null risk"), f"{name}: flow to rest")
        risk.set_xscale("log")
        gap.axhline(tolerance, color="black", linestyle=":", linewidth=1.2, label="tolerance")
        curves = {key: (np.arange(len(trial.gaps)), -trial.gaps) for key, trial in trials.items()}
        plot.courses(gap, curves, ("round", "−gap / Q"), f"{name}: optimality certificate")
        curves = {key: (np.arange(len(trial.gaps)), trial.round_objectives / decay) for key, trial in trials.items()}
        plot.courses(objective, curves, ("round", "Q / λ"), f"{name}: objective from rest on")
        objective.set_yscale("linear")


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([values, np.full(length - len(values), np.nan)])
