"""The result of `wgf limit`: its arrays, tables and figure."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import numpy as np
from matplotlib.figure import Figure

from ... import plot
from ...analysis import Gap, Noise, Replicates, student_quantile
from ...flows import RESULTS, FlowSolution
from ...objective import Objective
from .._failures import mark
from .._power_law import PowerLaw
from .._result import AbstractResult
from .._settings import in_settings
from .._table import Table
from ._clouds import DRAWN_DEPTHS, Clouds
from ._config import LimitConfig
from ._seeds import SeedMean, mean, root_mean_square

DISTANCES = ("gelbrich", "sinkhorn", "coupling")
GAPS = ("objective", "risk", "output", *DISTANCES)
_LABELS = {"gelbrich": "Gelbrich ≤ W₂", "sinkhorn": "Sinkhorn", "coupling": "coupling ≥ W₂"}


@dataclass(frozen=True, repr=False)
class LimitResult(AbstractResult):
    """The flows and gaps of one run of the main job: those of finite models by size, then by seed; the PDE's noise.

    A result from [`wgf.experiments.load`][] has all but the models of its flows.
    """

    config: LimitConfig
    objective: Objective
    limit: Replicates
    noise: Noise
    finite: tuple[tuple[FlowSolution, ...], ...]
    gaps: tuple[tuple[Gap, ...], ...]
    clouds: Clouds

    def without_models(self) -> "LimitResult":
        """The result without the models of its flows, which are large. Its tables, arrays and figure are the same."""
        limit = Replicates(_without_models(self.limit.pooled), _without_models(self.limit.members))
        finite = tuple(tuple(map(_without_models, solutions)) for solutions in self.finite)
        return dataclasses.replace(self, limit=limit, finite=finite)

    @in_settings
    def tables(self) -> tuple[Table, ...]:
        """The two tables, a row per size and time. `~` marks gaps that may be noise."""
        heads = tuple(part for name in ("risk gap ", "output gap ") for part in (name, "seeds", "error"))
        heads = ("L", "M", "tau", "R finite", "R PDE", *heads, "")
        outputs = Table(heads, list(self._output_rows()), left=(11,), title="Risk and outputs", keys=3)
        heads = tuple(part for name in ("Gelbrich ", "Sinkhorn ", "coupling ") for part in (name, "seeds", "error"))
        particles = Table(
            ("L", "M", "tau", *heads, ""),
            list(self._distance_rows()),
            left=(12,),
            title="Distances between the laws of the particles",
            notes=self._notes(),
            keys=3,
        )
        return outputs, particles

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each finite model whose flow failed."""
        lines = []
        for (depth, width), solutions in zip(self.config.sizes, self.finite, strict=True):
            for number, solution in enumerate(solutions):
                if bool(solution.result != RESULTS.successful):
                    lines.append(f"L = {depth}, M = {width}, seed {number}: {RESULTS[solution.result]}")
        return tuple(lines)

    def _mark(self, size: int, tau: int) -> str:
        """How many seeds of a size failed before a time, as a cell."""
        return mark(self._stacked(self.finite, "objective")[size, :, tau])

    def _output_rows(self) -> Iterator[list[str]]:
        limit, finite = np.asarray(self.limit.pooled.risk), mean(self._stacked(self.finite, "risk")).value
        for size, tau, start in self._starts():
            risks = (f"{finite[size, tau]:.6f}", f"{limit[tau]:.6f}")
            cells = (self._cells(name, size, tau) for name in ("risk", "output"))
            yield [*start, *risks, *(cell for three in cells for cell in three), self._mark(size, tau)]

    def _distance_rows(self) -> Iterator[list[str]]:
        converged = np.all(self._stacked(self.gaps, "distances.converged"), axis=1)
        for size, tau, start in self._starts():
            cells = (self._cells(name, size, tau) for name in DISTANCES)
            warning = self._mark(size, tau) or ("" if converged[size, tau] else "Sinkhorn not converged")
            yield [*start, *(cell for three in cells for cell in three), warning]

    def _starts(self) -> Iterator[tuple[int, int, tuple[str, str, str]]]:
        """The number of each size, of each time, and the first cells of its row."""
        for size, (depth, width) in enumerate(self.config.sizes):
            for number, tau in enumerate(np.asarray(self.limit.pooled.taus)):
                yield size, number, (f"{depth}", f"{width}", f"{tau:.4g}")

    def _cells(self, name: str, size: int, tau: int) -> tuple[str, str, str]:
        """A gap's mean over the seeds, the error of that mean, and the PDE's own error."""
        gap, mark = self._gap(name), " " if self._resolved(name)[size, tau] else "~"
        form = "+.2e" if name == "risk" else ".2e"
        return f"{gap.value[size, tau]:{form}}{mark}", f"{gap.error[size, tau]:.1e}", f"{self._noise(name)[tau]:.1e}"

    def _notes(self) -> list[str]:
        rms = float(self.objective.prompts.label_rms())
        config, count = self.config, self.config.replicates
        epsilon, factor = float(np.asarray(self.noise.epsilon)[0]), student_quantile(count)
        slopes = ", ".join(f"{name} {law.slope:+.2f} +- {law.interval:.2f}" for name, law in self.laws().items())
        return [
            f"data {config.data}: B = {config.batch} prompts of N = {config.examples} examples, "
            f"label RMS {rms:.3f}; lambda = {config.weight_decay:g}; rho_0 = N(0, {config.scale:g}^2)",
            f"PDE: {len(self.clouds.depths)} stage times in depth x {config.width} particles ({config.sampling}), "
            f"{int(self.limit.pooled.stats['num_steps'])} steps in tau; {count} replicates x {config.width // count} "
            "particles, solved alone",
            f"R: risk, of the finite models its mean over {config.seeds} seeds; risk gap: R finite - R PDE;",
            f"output gap, distances: root mean squares over {config.seeds} seeds; output gap: also over prompts;",
            "seeds: standard error of the number to its left; error: the PDE's own, by its replicates; ~: within "
            f"{factor:.2f} of its errors",
            f"distances: of {config.tracers} fresh particles at 4 depths, in the finite field and in the PDE's;",
            f"Gelbrich <= W2 <= coupling; Sinkhorn: root of the divergence of |x - y|^2 at epsilon = {epsilon:.3g}",
            *([f"slope in L M at the last tau, 95 %: {slopes}"] if slopes else []),
        ]

    def laws(self) -> dict[str, PowerLaw]:
        """The power law of each distance in L·M at the last τ, through the runs of all seeds."""
        if len(self.config.sizes) < 2:
            return {}
        counts = self._counts()
        runs = {name: self._stacked(self.gaps, name)[:, :, -1] for name in DISTANCES}
        return {
            name: PowerLaw.fit(np.repeat(counts, self.config.seeds), distances.ravel())
            for name, distances in runs.items()
            if np.all(distances > 0)
        }

    @in_settings
    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`.

        Axes: `[size, seed, tau, ...]` for finite models and gaps, `[size, tau]` for their means over the seeds,
        `[tau, ...]` for the limit and its noise, `[replicate, tau, ...]` for its replicates. `gap_NAME_mean` is a root
        mean square for outputs and distances, and `gap_NAME_seeds` the standard error of the mean.
        """
        prompts, pooled, clouds = self.objective.prompts, self.limit.pooled, self.clouds
        fields = ("objective", "risk", "dissipation", "outputs")
        estimates = {name: getattr(self.limit, name) for name in ("objective", "risk", "outputs")}
        seeds = self.config.seeds
        return {
            "taus": pooled.taus,
            "sizes": np.array(self.config.sizes),
            "tokens": prompts.tokens,
            "labels": prompts.labels,
            **{f"limit_{name}": getattr(pooled, name) for name in fields},
            **{f"limit_{name}_error": estimate.standard_error for name, estimate in estimates.items()},
            **{f"limit_{name}_bias": estimate.bias for name, estimate in estimates.items()},
            **{f"replicates_{name}": getattr(self.limit.members, name) for name in fields},
            **{f"finite_{name}": self._stacked(self.finite, name) for name in fields},
            **{f"gap_{name}": self._stacked(self.gaps, name) for name in GAPS},
            **{f"gap_{name}_mean": self._gap(name).value for name in GAPS},
            **{f"gap_{name}_seeds": self._gap(name).error for name in GAPS},
            **{f"noise_{name}": self._noise(name) for name in GAPS},
            **{f"resolved_{name}": self._resolved(name) for name in GAPS},
            **{f"sinkhorn_{name}": self._stacked(self.gaps, f"distances.{name}") for name in ("epsilon", "converged")},
            "coordinate_names": np.array(clouds.names),
            "limit_depths": clouds.depths,
            "limit_particles": clouds.limit,
            **{
                f"finite_particles_{depth}x{width}": np.stack(clouds.finite[number * seeds : (number + 1) * seeds])
                for number, (depth, width) in enumerate(self.config.sizes)
            },
        }

    @in_settings
    def figure(self) -> Figure:
        """Gaps against τ beside the PDE's own error, distances against size, and the clouds of the largest model."""
        figure = Figure(figsize=(12.5, 8.2), layout="constrained")
        grid = figure.subplots(2, 3)
        self._draw_risk_gap(grid[0, 0])
        self._draw_gaps(grid[0, 1:])
        self._draw_laws(grid[1, 0])
        self._draw_clouds(grid[1, 1:])
        return figure

    def _draw_risk_gap(self, axes) -> None:
        taus, gap = np.asarray(self.limit.pooled.taus), self._gap("risk")
        first, last = np.asarray(self.limit.pooled.risk)[[0, -1]]
        plot.signed_gap_curves(
            axes,
            taus,
            self._named(gap.value),
            "risk gap",
            self._named(gap.error),
            student_quantile(self.config.replicates) * self._noise("risk"),
            f"Risk gap to the PDE, whose risk is {first:.3f} to {last:.3f}",
            legend="below",
        )

    def _draw_gaps(self, row) -> None:
        taus = np.asarray(self.limit.pooled.taus)
        labels = {"output": "output gap (RMS)", "sinkhorn": "Sinkhorn distance of particles"}
        for axes, (kind, label) in zip(row, labels.items(), strict=True):
            gap, resolved = self._gap(kind), self._resolved(kind)
            values, marks, errors = map(self._named, (gap.value, resolved, gap.error))
            plot.gap_curves(axes, taus, values, label, self._noise(kind), marks, errors, legend="below")

    def _named(self, each: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of an array `[size, ...]` by the names of the sizes."""
        names = [f"L = {depth}, M = {width}" for depth, width in self.config.sizes]
        return dict(zip(names, each, strict=True))

    def _draw_laws(self, axes) -> None:
        counts, laws = self._counts(), self.laws()
        groups = {
            (f"{_LABELS[name]}, slope {laws[name].slope:.2f}" if name in laws else _LABELS[name]): (
                self._stacked(self.gaps, name)[:, :, -1],
                laws[name](counts) if name in laws else None,
                float(self._noise(name)[-1]),
            )
            for name in DISTANCES
        }
        tau = float(np.asarray(self.limit.pooled.taus)[-1])
        plot.distance_laws(axes, counts, groups, f"Distances at τ = {tau:g}", legend="below")

    def _draw_clouds(self, row) -> None:
        # The two coordinates that moved most under the limit's flow.
        x, y = np.sort(np.argsort(self.clouds.moves)[-2:])
        labels, tau = self.clouds.names, float(np.asarray(self.limit.pooled.taus)[-1])
        for axes, depth, clouds in zip(row, DRAWN_DEPTHS, self.clouds.drawn, strict=True):
            limits, finite = (cloud[:, [x, y]] for cloud in clouds)
            plot.clouds(axes, limits, finite, (labels[x], labels[y]), f"Particles at t = {depth:.2g}, τ = {tau:g}")

    def _counts(self) -> np.ndarray:
        """The number of particles L·M of each size."""
        return np.array([depth * width for depth, width in self.config.sizes], float)

    def _gap(self, name: str) -> SeedMean:
        """A gap's mean over the seeds, `[size, tau]`. Q and the risk keep their signs."""
        over_seeds = mean if name in ("objective", "risk") else root_mean_square
        return over_seeds(self._stacked(self.gaps, name))

    def _noise(self, name: str) -> np.ndarray:
        return np.asarray(getattr(self.noise, name))

    def _resolved(self, name: str) -> np.ndarray:
        """Whether each mean exceeds the PDE's own error, `[size, tau]`."""
        return np.asarray(self.noise.resolves(name, self._gap(name).value))

    @staticmethod
    def _stacked(each: tuple[tuple[Any, ...], ...], name: str) -> np.ndarray:
        """A named array of all sizes and seeds, `[size, seed, ...]`. A dot leads into a part."""

        def named(value: Any) -> np.ndarray:
            for part in name.split("."):
                value = getattr(value, part)
            return np.asarray(value)

        return np.stack([np.stack([named(value) for value in seeds]) for seeds in each])


def _without_models(solution: FlowSolution) -> FlowSolution:
    return eqx.tree_at(lambda s: s.models, solution, None)
