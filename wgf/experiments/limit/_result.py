"""The result of `wgf limit`: its table, arrays and figure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ... import plot
from ...analysis import Gap, Replicates, student_quantile
from ...flows import FlowSolution
from ...measures import coordinate_names
from ...objective import Objective
from .._table import Table
from ._clouds import clouds_at, final_particles, mean_squared_moves
from ._config import LimitConfig

# Head, format and array of each column after L, M and tau. Unresolved gaps carry a mark.
_COLUMNS = (
    ("Q finite", ".6f", "finite_objective"),
    ("Q PDE", ".6f", "limit_objective"),
    ("error", ".1e", "noise_objective"),
    ("risk gap ", "+.2e", "gap_risk"),
    ("error", ".1e", "noise_risk"),
    ("output ", ".2e", "gap_output"),
    ("error", ".1e", "noise_output"),
    ("Sinkhorn", ".4f", "sinkhorn_value"),
    ("floor", ".4f", "sinkhorn_floor"),
    ("excess", "+.1e", "sinkhorn_excess"),
    ("coupling ", ".2e", "gap_coupling"),
    ("error", ".1e", "noise_coupling"),
)


@dataclass(frozen=True)
class LimitResult:
    """The flows and gaps of one run of the main job."""

    config: LimitConfig
    objective: Objective
    limit: Replicates
    finite: tuple[FlowSolution, ...]
    gaps: tuple[Gap, ...]

    def table(self) -> str:
        """The table that the command prints: a row per size and training time. `~` marks gaps that may be noise."""
        heads = ("L", "M", "tau", *(head for head, *_ in _COLUMNS), "")
        return str(Table(heads, list(self._rows()), left=(len(heads) - 1,), notes=self._notes(), gap=1))

    def _rows(self) -> Iterator[list[str]]:
        arrays = self.arrays()
        for number, (depth, width) in enumerate(self.config.sizes):
            for i, tau in enumerate(np.asarray(arrays["taus"])):
                cells = (_cell(arrays, form, name, number, i) for _, form, name in _COLUMNS)
                warning = "" if arrays["sinkhorn_converged"][number, i] else "Sinkhorn not converged"
                yield [f"{depth}", f"{width}", f"{tau:.4g}", *cells, warning]

    def _notes(self) -> list[str]:
        rms = float(self.objective.prompts.label_rms())
        config, count = self.config, self.config.replicates
        epsilon, factor = float(np.asarray(self.gaps[0].sinkhorn.epsilon)[0]), student_quantile(count)
        depths = self.limit.pooled.models.measure.weights.shape[1]
        return [
            f"data {config.data}: B = {config.batch} prompts of N = {config.examples} examples, "
            f"label RMS {rms:.3f}; lambda = {config.weight_decay:g}; rho_0 = N(0, {config.scale:g}^2)",
            f"PDE: {depths} stage times in depth x {config.width} particles ({config.sampling}), "
            f"{int(self.limit.pooled.stats['num_steps'])} steps in tau; {count} replicates x {config.width // count} "
            "particles, solved alone",
            "gaps are finite minus PDE; output: RMS over prompts; Sinkhorn and coupling: squared distances;",
            "error: RMS sampling error of the PDE solution in the column to its left (coupling: its square), from the "
            "replicates;",
            f"~: the number is within {factor:.2f} errors (95 % of Student's t; coupling: {factor**2:.2f}) and may be "
            "the PDE's own noise;",
            "floor: two independent samples of the PDE's law, of the sizes compared; excess: Sinkhorn minus floor; "
            f"epsilon = {epsilon:.3g}",
        ]

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`.

        Axes: `[size, tau, ...]` for finite models and gaps, `[tau, ...]` for the limit, `[replicate, tau, ...]` for its
        replicates.
        """
        prompts, pooled = self.objective.prompts, self.limit.pooled
        fields = ("objective", "risk", "dissipation", "outputs")
        gaps = ("objective", "risk", "output", "coupling")
        sinkhorn = ("value", "floor", "excess", "epsilon", "converged")
        estimates = {name: getattr(self.limit, name) for name in ("objective", "risk", "outputs")}
        depths, particles, *finite = final_particles(pooled.models.measure, *(s.models.measure for s in self.finite))
        return {
            "taus": pooled.taus,
            "sizes": np.array(self.config.sizes),
            "tokens": prompts.tokens,
            "labels": prompts.labels,
            **{f"limit_{name}": getattr(pooled, name) for name in fields},
            **{f"limit_{name}_error": estimate.standard_error for name, estimate in estimates.items()},
            **{f"limit_{name}_bias": estimate.bias for name, estimate in estimates.items()},
            **{f"replicates_{name}": getattr(self.limit.members, name) for name in fields},
            **{f"finite_{name}": np.stack([getattr(s, name) for s in self.finite]) for name in fields},
            **{f"gap_{name}": np.stack([getattr(g, name) for g in self.gaps]) for name in gaps},
            **{f"noise_{name}": np.stack([getattr(g.noise, name) for g in self.gaps]) for name in gaps},
            **{f"resolved_{name}": np.stack([getattr(g.resolved, name) for g in self.gaps]) for name in gaps},
            **{f"sinkhorn_{name}": np.stack([getattr(g.sinkhorn, name) for g in self.gaps]) for name in sinkhorn},
            "coordinate_names": np.array(coordinate_names(pooled.models.encoder)),
            "limit_depths": depths,
            "limit_particles": particles,
            **{
                f"finite_particles_{depth}x{width}": cloud
                for (depth, width), cloud in zip(self.config.sizes, finite, strict=True)
            },
        }

    def figure(self) -> Figure:
        """Risks and gaps against τ, beside the PDE's own error; the largest model's particles over the PDE's."""
        figure = Figure(figsize=(12.5, 7.2), layout="constrained")
        grid = figure.subplots(2, 3)
        for axes in grid[1, 1:]:
            axes.sharex(grid[1, 0])
            axes.sharey(grid[1, 0])
        self._draw_curves(grid[0])
        self._draw_clouds(grid[1])
        return figure

    def _draw_curves(self, row) -> None:
        taus, risk = np.asarray(self.limit.pooled.taus), self.limit.risk
        names = [f"L = {depth}, M = {width}" for depth, width in self.config.sizes]
        risks = {name: solution.risk for name, solution in zip(names, self.finite, strict=True)}
        plot.risk_curves(row[0], taus, risks, risk.value, risk.interval())
        labels = (("output", "output gap (RMS)"), ("coupling", "coupling distance"))
        for axes, (kind, label) in zip(row[1:], labels, strict=True):
            gaps = {name: getattr(gap, kind) for name, gap in zip(names, self.gaps, strict=True)}
            resolved = {name: getattr(gap.resolved, kind) for name, gap in zip(names, self.gaps, strict=True)}
            plot.gap_curves(axes, taus, gaps, label, getattr(self.gaps[0].noise, kind), resolved)

    def _draw_clouds(self, row) -> None:
        largest, limit = self.finite[-1].models, self.limit.pooled.models
        # The two coordinates that moved most under the limit's flow.
        x, y = np.sort(np.argsort(np.asarray(mean_squared_moves(limit.measure)))[-2:])
        labels = coordinate_names(largest.encoder)
        depths = (0.0, 0.5, 0.999)
        for axes, depth, clouds in zip(row, depths, clouds_at(limit.measure, largest.measure, depths), strict=True):
            limits, finite = (np.asarray(cloud)[:, [x, y]] for cloud in clouds)
            plot.clouds(axes, limits, finite, (labels[x], labels[y]), f"particles at t = {depth:.2g}")


def _cell(arrays: dict[str, Any], form: str, name: str, size: int, tau: int) -> str:
    array = np.asarray(arrays[name])
    cell = format(array[tau] if name.startswith("limit_") else array[size, tau], form)
    if not name.startswith("gap_"):
        return cell
    return cell + (" " if arrays[name.replace("gap_", "resolved_")][size, tau] else "~")
