"""The result of `wgf residual`: its table, arrays and figure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ... import plot
from .._failures import mark, of_seeds
from .._power_law import PowerLaw
from .._result import AbstractResult
from .._settings import in_settings
from .._table import Table
from ._condition import Runs
from ._config import ResidualConfig

_HEADS = (
    *("", "residual", "L", "N", "T", "gamma", "cond.", "at end", "s_min^2", "decades", "R2", "linear"),
    *("rate", "rate/s2", "bound", "slack", ""),
)


@dataclass(frozen=True, repr=False)
class ResidualResult(AbstractResult):
    """All conditions of one run of the experiment."""

    config: ResidualConfig
    runs: tuple[Runs, ...]

    def find(self, **wanted: Any) -> list[Runs]:
        """The runs whose conditions have the given field values."""
        return [r for r in self.runs if all(getattr(r.condition, k) == v for k, v in wanted.items())]

    def rate_law(self, *, slope: float, descent: bool = False) -> PowerLaw:
        """The rate against σ_min(B)², over the one-layer runs of one activation whose log-loss fell linearly.

        For gradient descent both are multiplied by the learning rate, which is proportional to σ_max(B)⁻².
        """
        return PowerLaw.fit(*self._law_points(slope, descent, (True, False)))

    def _law_points(self, slope: float, descent: bool, residual: Iterable[bool]) -> tuple[np.ndarray, np.ndarray]:
        """The points of `rate_law`: σ_min(B)² and the rate of each run."""
        runs = [r for r in self.find(depth=1, slope=slope, descent=descent) if r.condition.residual in residual]
        steps = [self._learning_rates(r) if descent else np.ones(len(r.loss)) for r in runs]
        squares = [h * r.within(r.least[..., -1] ** 2) for h, r in zip(steps, runs, strict=True)]
        rates = [h * r.rates for h, r in zip(steps, runs, strict=True)]
        linear = np.concatenate([r.is_linear for r in runs])
        return np.concatenate(squares)[linear], np.concatenate(rates)[linear]

    def _learning_rates(self, runs: Runs) -> np.ndarray:
        return self.config.step / runs.greatest[:, 0].max(axis=-1) ** 2

    @in_settings
    def tables(self) -> tuple[Table, ...]:
        """The table: a row per condition."""
        return (Table(_HEADS, [_row(runs) for runs in self.runs], left=(0, 16), notes=self._notes(), gap=1, keys=6),)

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each condition with seeds whose training failed."""
        return tuple(line for r in self.runs for line in of_seeds(r.condition.name.replace("_", " "), r.loss))

    def _notes(self) -> list[str]:
        config, slope = self.config, self.config.slope
        factors = [self._improvement(r) for r in self.find(residual=True, slope=slope, depth=1, descent=False)]
        medians = [float(np.median(factor)) for factor in factors]
        laws = {
            f"rate against s_min^2, gamma = {slope:g}": {"slope": slope},
            "rate against s_min^2, gamma = 1": {"slope": 1.0},
            f"descent's rate per step against (s_min/s_max)^2, gamma = {slope:g}": {"slope": slope, "descent": True},
        }
        return [
            f"d = {config.dim}, m = {config.hidden}, {config.seeds} seeds; L: layers; N: tokens; T: temperature of the "
            "softmax; gamma: least slope of the activation;",
            "cond.: condition number of the last attention output B at the start of training; at end: at its end "
            "(medians);",
            "s_min^2: of B, mean over the fit (median); decades: fallen; R2: of the fit, decades one to five; "
            "both: worst seed;",
            "linear: seeds with R2 >= 0.98 over at least three decades; rate: -d log L/dtau (median);",
            "rate/s2: rate / s_min^2 (median over seeds of the quotient);",
            "bound: 2 gamma^2 s_min(B)^2 s_min(W_2)^2 at the start (median); slack: least instantaneous rate / bound",
            "one layer: the residual connection improves the condition number at the start",
            f"{min(medians):.3g} to {max(medians):.3g} times (medians), {np.min(factors):.3g} times for the worst seed",
            *(f"{name}: {self.rate_law(**law)}" for name, law in laws.items()),
        ]

    def _improvement(self, runs: Runs) -> Float[np.ndarray, " seeds"]:
        """The condition number of B at the start without the connection over that with it, for each seed."""
        condition = runs.condition
        (without,) = self.find(
            residual=False,
            length=condition.length,
            temperature=condition.temperature,
            slope=condition.slope,
            depth=condition.depth,
            descent=condition.descent,
        )
        return without.conditions[:, 0] / runs.conditions[:, 0]

    @in_settings
    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`: of each condition, with leading axes `[seeds, saves]`."""
        fields = ("times", "loss", "dissipation", "bound", "least", "greatest")
        return {f"{r.condition.name}_{field}": getattr(r, field) for r in self.runs for field in fields}

    @in_settings
    def figure(self) -> Figure:
        """Loss and condition number along training, the law of the rate, and depth."""
        figure = Figure(figsize=(12.5, 7.4), layout="constrained")
        grid = figure.subplots(2, 3)
        self._draw_along(grid[0, 0], grid[0, 1])
        self._draw_start(grid[0, 2])
        self._draw_law(grid[1, 0])
        self._draw_depth(grid[1, 1], grid[1, 2])
        return figure

    def _draw_along(self, losses, conditions) -> None:
        """Loss and condition number along training, at the reference length and temperature."""
        length, temperature = self.config.reference
        runs = self.find(length=length, temperature=temperature, slope=self.config.slope, depth=1, descent=False)
        title, x = f"Loss: one layer, N = {length}, T = {temperature:g}", "training time τ"
        plot.bundles(losses, {_name(r): (r.times, r.loss) for r in runs}, x, "loss L", title)
        plot.bundles(
            conditions,
            {_name(r): (r.times, r.conditions) for r in runs},
            x,
            "condition number of B",
            "Conditioning along training",
        )

    def _draw_start(self, axes) -> None:
        """Condition numbers at the start against temperature, with the range over seeds."""
        lines = {}
        for residual in (True, False):
            for length in self.config.lengths:
                runs = self.find(residual=residual, length=length, slope=self.config.slope, depth=1, descent=False)
                starts = np.stack([r.conditions[:, 0] for r in runs])
                name = f"N = {length}, {runs[0].condition.connection}"
                lines[name] = (np.array([r.condition.temperature for r in runs]), starts)
        plot.ranges(axes, lines, "temperature T", "condition number of B", "Conditioning at the start (range of seeds)")

    def _draw_law(self, axes) -> None:
        """The rate against σ_min(B)², with the fitted power law of each activation."""
        groups = {}
        for slope in sorted({self.config.slope, 1.0}):
            law, (x, y) = self.rate_law(slope=slope), self._law_points(slope, False, (True, False))
            ends = np.array([x.min(), x.max()])
            groups[f"γ = {slope:g}: exponent {law.slope:.2f} ± {law.interval:.2f}"] = (x, y, ends, law(ends))
        plot.power_laws(axes, groups, ("σ_min(B)²", "rate −d log L/dτ"), "The rate of training (all linear runs)")

    def _draw_depth(self, losses, conditions) -> None:
        """Loss along training and condition numbers at the start, for each number of layers."""
        length, (_, temperature) = self.config.lengths[0], self.config.reference
        runs = self.find(length=length, temperature=temperature, slope=self.config.slope, descent=False)
        curves = {
            f"{r.condition.depth} layer{'s' * (r.condition.depth > 1)}, {r.condition.connection}": r
            for r in sorted(runs, key=lambda r: (not r.condition.residual, r.condition.depth))
        }
        medians = {name: (r.times[0], np.median(r.loss / r.loss[:, :1], axis=0)) for name, r in curves.items()}
        plot.families(losses, medians, "training time τ", "loss L / L(0)", f"Depth, N = {length}: loss (medians)")
        losses.get_legend().remove()  # The legend of the next panel serves both.
        layers = {
            name: (np.arange(1, r.condition.depth + 1), np.median(r.layers[:, 0], axis=0)) for name, r in curves.items()
        }
        plot.families(
            conditions, layers, "layer", "condition number of B", f"Depth, N = {length}: at the start (κ ≤ 1/ε)"
        )


def _row(runs: Runs) -> list[str]:
    condition, fits = runs.condition, runs.fits
    squares = runs.within(runs.least[..., -1] ** 2)
    return [
        condition.method,
        condition.connection,
        f"{condition.depth}",
        f"{condition.length}",
        f"{condition.temperature:g}",
        f"{condition.slope:g}",
        f"{np.median(runs.conditions[:, 0]):.3g}",
        f"{np.median(runs.conditions[:, -1]):.3g}",
        f"{np.median(squares):.2g}",
        f"{min(f.fallen for f in fits):.2f}",
        f"{min(f.r_squared for f in fits):.4f}",
        f"{runs.is_linear.sum()}/{len(fits)}",
        f"{np.median(runs.rates):.3g}",
        f"{np.median(runs.rates / squares):.2g}",
        f"{np.median(runs.bound[:, 0]):.2g}",
        f"{np.min(runs.slack):.3g}" if np.all(runs.bound > 0) else "-",
        mark(runs.loss),
    ]


def _name(runs: Runs) -> str:
    return f"{runs.condition.connection} residual connections"
