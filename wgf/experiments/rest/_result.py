"""The result of `wgf rest`: its table, arrays and figure."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ... import plot
from ...plot._style import LIMIT
from .._failures import brief
from .._result import AbstractResult
from .._table import Table
from ._config import RestConfig
from ._trial import Stage, Trial

_HEADS = ("data", "model", "", "tau", "risk", "Q/lambda", "risk gap", "output gap", "gap/Q", "particles", "steps")


@dataclass(frozen=True, repr=False)
class RestResult(AbstractResult):
    """All trials of one run of the experiment."""

    config: RestConfig
    trials: tuple[Trial, ...]

    def find(self, name: str) -> list[Trial]:
        """The trials on one data set: finite models by size, then the PDE."""
        return [trial for trial in self.trials if trial.data == name]

    def limit(self, name: str) -> Trial:
        """The PDE's trial on one data set."""
        return next(trial for trial in self.find(name) if trial.is_limit)

    def tables(self) -> tuple[Table, ...]:
        """The table: three rows per data set and model."""
        rows = [row for name in self.config.data for trial in self.find(name) for row in self._rows(trial)]
        return (Table(_HEADS, rows, left=(0, 1, 2), notes=self._notes(), keys=3),)

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each trial that failed."""
        return tuple(f"{trial.data}, {trial.name}: {trial.failure}" for trial in self.trials if trial.failure)

    def _rows(self, trial: Trial) -> list[list[str] | str]:
        if trial.failure:
            return [f"{trial.data}  {trial.name}  failed: {brief(trial.failure)}"]
        names = {"rest": "flow", "longer": "flow on", "end": f"{trial.rounds} rounds"}
        limit = self.limit(trial.data)
        return [
            [trial.data, trial.name, name, *self._cells(getattr(trial, stage), getattr(limit, stage), trial.is_limit)]
            for stage, name in names.items()
        ]

    def _cells(self, stage: Stage, limit: Stage, is_limit: bool) -> list[str]:
        output = float(np.sqrt(np.mean((stage.outputs - limit.outputs) ** 2)))
        return [
            f"{stage.tau:.4g}",
            f"{stage.risk:.1e}",
            f"{stage.objective / self.config.weight_decay:.4g}",
            "-" if is_limit else f"{stage.risk - limit.risk:+.1e}",
            "-" if is_limit else f"{output:.1e}",
            f"{stage.gap:.1e}",
            f"{stage.particles:.3g}",
            f"{stage.steps}",
        ]

    def _notes(self) -> list[str]:
        config = self.config
        motions = [trial.motion for trial in self.trials if not trial.failure]
        moved = f"{max(motions):.1e}" if motions else "-"
        return [
            "risk: share of the null model's; risk gap, output gap (RMS over prompts): to the PDE in the same stage;",
            "gap/Q: the certificate, least dQ/drho minus its mean (worst depth): 0 at a global minimum of Q;",
            f"rounds: conditional gradient, at most {config.mass:g} of a depth's mass, then {config.round_length:g} / "
            f"lambda of flow, until gap/Q > -{config.tolerance:g};",
            "flow on: the flow alone for as long; particles: of positive weight, mean over depths;",
            "Q/lambda: half the mean square of the particles if the risk is 0;",
            "steps: in tau, of the flow from its start or from rest;",
            f"the flows lost at most {moved} of Q in their last 1 / lambda of time before the rounds",
            f"B = {config.batch}, N = {config.examples}; lambda = {config.weight_decay:g}; PDE: 8 stage times x "
            f"{config.width} particles; rho_0 = N(0, {config.scale:g}^2); float64",
        ]

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`: leading axis `[trial]`; those of rounds are padded with NaN."""
        longest = max(len(trial.gaps) for trial in self.trials)
        single = ("data", "failure", "is_limit", "depth", "width", "motion", "taus", "risks", "objectives")
        rounds = ("round_objectives", "gaps", "lacking")
        return {
            **{name: np.array([getattr(trial, name) for trial in self.trials]) for name in single},
            **{name: np.stack([_padded(getattr(trial, name), longest) for trial in self.trials]) for name in rounds},
            **{
                f"{stage}_{field.name}": np.array([getattr(getattr(trial, stage), field.name) for trial in self.trials])
                for stage in ("rest", "longer", "end")
                for field in dataclasses.fields(Stage)
            },
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
        gap.axhline(tolerance, color=LIMIT, linestyle=":", linewidth=1.2, label="tolerance")
        curves = {key: (np.arange(len(trial.gaps)), -trial.gaps) for key, trial in trials.items()}
        plot.courses(gap, curves, ("round", "−gap / Q"), f"{name}: optimality certificate", legend="lower left")
        # Room for the legend below the tolerance.
        gap.set_ylim(bottom=tolerance / 30)
        curves = {key: (np.arange(len(trial.gaps)), trial.round_objectives / decay) for key, trial in trials.items()}
        plot.courses(objective, curves, ("round", "Q / λ"), f"{name}: objective from rest on")
        objective.set_yscale("linear")


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([values, np.full(length - len(values), np.nan)])
