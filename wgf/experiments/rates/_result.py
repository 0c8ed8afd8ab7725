"""The result of `wgf rates`: gaps of every size, fits, table, arrays and figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import equinox as eqx
import numpy as np
from matplotlib.figure import Figure

from ... import plot
from ...analysis import FORMS, RateFit, fit_rates
from .._failures import failed, mark, of_seeds
from .._grouping import Size
from .._result import AbstractResult
from .._table import Table
from ._config import RatesConfig
from ._gaps import ReferenceNoise, SeedGaps

LEAST_SIZES = 6
"""The sizes that a fit of the rates needs."""
KINDS = ("output", "coupling", "risk", "objective")
EXPONENTS = ("alpha", "beta", "gamma")
_HEADS = (
    *("method", "L", "M", "output gap", "+-", "coupling", "risk gap", "Q gap"),
    *("root(LM) gap", "bias", "+-", ""),
)
_NAMES = {"flow": "gradient flow", "adam": "Adam", "adamw": "AdamW"}


@dataclass(frozen=True, repr=False)
class RatesResult(AbstractResult):
    """All gaps of one run of the experiment.

    - `found`: the gaps of each method ('flow', 'adam', 'adamw') and size, corrected for `noise`.
    - `noise`: the contribution of each method's reference to the measured gaps.
    """

    config: RatesConfig
    label_rms: float
    found: Mapping[str, Mapping[Size, SeedGaps]]
    noise: Mapping[str, ReferenceNoise]

    @cached_property
    def fits(self) -> dict[tuple[str, str], RateFit]:
        """The fitted rates of each (method, kind of gap): four kinds for the flow, outputs for the optimisers."""
        kinds = [("flow", kind) for kind in KINDS] + [(name, "output") for name in self.config.optimisers]
        return {key: self._fit(*key) for key in kinds}

    def _fit(self, method: str, kind: str) -> RateFit:
        found = {size: getattr(gaps, kind) for size, gaps in self.found[method].items()}
        # A size is left out if one of its seeds failed.
        grid = [size for size in self.config.grid() if size in found]
        sizes = [size for size in grid if not failed(found[size]).any()]
        if len(sizes) < LEAST_SIZES:
            raise eqx.EquinoxRuntimeError(
                f"{len(grid) - len(sizes)} of {len(grid)} sizes have failed seeds ({method}), and a fit needs "
                f"{LEAST_SIZES} sizes without. Lower `scale`, or raise `steps`."
            )
        values = np.stack([found[size] for size in sizes])
        depths, widths = np.array(sizes).T
        return fit_rates(depths, widths, values, resamples=self.config.resamples, seed=self.config.seed)

    def path(self, name: str, kind: str = "output") -> np.ndarray:
        """The flow's gaps along one of the paths of the config, `[sizes, seeds]`."""
        return np.stack([getattr(self.found["flow"][size], kind) for size in self.config.paths()[name]])

    def tables(self) -> tuple[Table, ...]:
        """The table: a row per method and size, then paths, fits and verdicts."""
        rows = [
            _row(method, size, gaps) for method, found in self.found.items() for size, gaps in sorted(found.items())
        ]
        return (Table(_HEADS, rows, left=(0, 11), keys=3, notes=[*self._paths(), *self._fits(), *self._notes()]),)

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each method and size with seeds that failed."""
        sizes = ((method, size, gaps) for method, found in self.found.items() for size, gaps in found.items())
        return tuple(
            line
            for method, (depth, width), gaps in sizes
            for line in of_seeds(f"{method}, {depth} x {width}", gaps.output)
        )

    def _paths(self) -> list[str]:
        lines = []
        for name, sizes in self.config.paths().items():
            shown = ", ".join(
                f"{size[0]} x {size[1]} {_rms(gap):.1e}" for size, gap in zip(sizes, self.path(name), strict=True)
            )
            lines.append(f"{name}: output gap at L x M: {shown}")
        return lines

    def _fits(self) -> list[str]:
        lines = []
        for (method, kind), fit in self.fits.items():
            lines += [f"{method}, {kind}: {_shown(fit, 'ab')}; off by {100 * fit.deviation:.0f} %"]
            lines += [f"    {_shown(fit, EXPONENTS)}", *(f"    {verdict}" for verdict in fit.verdicts)]
        return lines

    def _notes(self) -> list[str]:
        config = self.config
        noise = ", ".join(f"{method} {noise.output:.1e}" for method, noise in self.noise.items())
        flow = self.noise["flow"]
        return [
            "fits: a L^-alpha + b L^-beta M^-gamma [95 %, bootstrap over seeds];",
            "    below: forms of theory, a and b free",
            "off by: root mean square of log(gap / fit) over the sizes; of a form: of log(gap / form)",
            "p: probability of such deviations from the scatter of the seeds alone; a form fits if p > 0.05",
            "trend: slope of log(gap / form) against log(L M); below 0 the gap falls faster than the form",
            f"gaps: root mean squares over {config.seeds} seeds, at tau = {config.tau:g} or after {config.updates} "
            f"updates; label RMS {self.label_rms:.3f}",
            "coupling: distance from the limit's tracers; root(LM) gap: output gap times the root of L M",
            "bias: share of the squared bias over seeds in the squared output gap; the rest is scatter",
            "+-: standard error of the number to its left",
            f"reference: {config.replicates} replicates x {config.reference} particles at each stage time; its RMS "
            "error, subtracted in square:",
            f"    in outputs {noise}; of the flow in coupling {flow.coupling:.1e},",
            f"    risk {flow.risk:.1e}, Q {flow.objective:.1e}",
        ]

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`. Per method: sizes `[size, 2]`, gaps `[size, seeds]`, fits `[3, 5]`."""
        return {
            **{f"{method}_sizes": np.array(list(found)) for method, found in self.found.items()},
            **{
                f"{method}_{name}": np.stack([getattr(gaps, name) for gaps in found.values()])
                for method, found in self.found.items()
                for name in SeedGaps._fields
            },
            **{f"{method}_noise": np.array(noise) for method, noise in self.noise.items()},
            **{f"{m}_{kind}_fit": np.stack([fit.values, fit.low, fit.high]) for (m, kind), fit in self.fits.items()},
        }

    def figure(self) -> Figure:
        """Output and coupling gaps with the fit, the forms of theory, the paths, and the optimisers."""
        figure = Figure(figsize=(13, 7.6), layout="constrained")
        axes = figure.subplots(2, 3)
        self._sweep(axes[0, 0], "output", by_width=True)
        self._sweep(axes[0, 1], "output", by_width=False)
        self._sweep(axes[0, 2], "coupling", by_width=True)
        self._forms(axes[1, 0])
        self._draw_paths(axes[1, 1])
        self._methods(axes[1, 2])
        return figure

    def _sweep(self, axes, kind: str, *, by_width: bool) -> None:
        """Gaps against M with a colour per L, or against L with a colour per M, and the fitted lines."""
        fit, config = self.fits["flow", kind], self.config
        outer, inner = (config.depths, config.widths) if by_width else (config.widths, config.depths)
        curves = {}
        for value in outer:
            sizes = [(value, x) if by_width else (x, value) for x in inner]
            points = np.stack([getattr(self.found["flow"][size], kind) for size in sizes])
            curves[f"{'L' if by_width else 'M'} = {value}"] = (np.array(inner), points, fit(*np.array(sizes).T))
        plot.fitted(axes, curves, ("width M" if by_width else "depth L", f"{kind} gap"), _title(kind, fit))

    def _forms(self, axes) -> None:
        """Output gaps divided by each form of theory with fitted factors. The ratio is constant if the form holds."""
        depths, widths = np.array(self.config.grid(), float).T
        gap = np.array([_rms(self.found["flow"][size].output) for size in self.config.grid()])
        sizes, groups = depths * widths, {}
        for verdict in self.fits["flow", "output"].verdicts:
            ratio = gap / (verdict.a / depths + verdict.b * FORMS[verdict.form](depths, widths))
            slope, level = np.polyfit(np.log(sizes), np.log(ratio), 1)
            ends = np.array([sizes.min(), sizes.max()])
            groups[verdict.form] = (sizes, ratio, ends, np.exp(level) * ends**slope)
        plot.power_laws(axes, groups, ("particles L M", "output gap / form"), "Forms of theory")

    def _draw_paths(self, axes) -> None:
        """Gaps along the paths, with lines through the root mean squares."""
        curves = {}
        for name, sizes in self.config.paths().items():
            points = self.path(name)
            curves[name] = (np.array([depth for depth, _ in sizes]), points, np.sqrt(np.mean(points**2, axis=1)))
        plot.fitted(axes, curves, ("depth L", "output gap"), "Width along with depth")

    def _methods(self, axes) -> None:
        """Output gaps of the flow and the optimisers at the largest depth."""
        curves, deepest = {}, self.config.depths[-1]
        for method, found in self.found.items():
            sizes = [size for size in self.config.grid() if size in found and size[0] == deepest]
            points = np.stack([found[size].output for size in sizes])
            line = self.fits[method, "output"](*np.array(sizes).T)
            curves[_NAMES[method]] = (np.array([width for _, width in sizes]), points, line)
        plot.fitted(axes, curves, ("width M", "output gap"), f"Optimisers, L = {deepest}")


def _shown(fit: RateFit, names: Sequence[str]) -> str:
    """The named numbers of the fit, with their intervals."""
    columns = {"a": 0, "alpha": 1, "b": 2, "beta": 3, "gamma": 4}
    # A value at the lower bound of the search is zero up to rounding.
    values, low, high = (np.where(row < 1e-6, 0, row) for row in (fit.values, fit.low, fit.high))
    places = [(name, columns[name]) for name in names]
    return ", ".join(f"{name} {values[i]:.2g} [{low[i]:.2g}, {high[i]:.2g}]" for name, i in places)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _row(method: str, size: Size, gaps: SeedGaps) -> list[str]:
    """Root mean squares over seeds, with the standard errors of the output gap and of the share of its bias."""
    output, seeds = _rms(gaps.output), len(gaps.output)
    bar = np.std(gaps.output**2, ddof=1) / np.sqrt(seeds) / (2 * output)
    roots = (_rms(getattr(gaps, kind)) for kind in KINDS[1:])
    cells = [f"{output:.2e}", f"{bar:.1e}", *(f"{root:.2e}" if np.isfinite(root) else "-" for root in roots)]
    share, error = np.mean(gaps.bias), np.std(gaps.bias, ddof=1) / np.sqrt(seeds)
    cells += [f"{np.sqrt(np.prod(size)) * output:.3f}", *(f"{x / output**2:.2f}" for x in (share, error))]
    return [method, *map(str, size), *cells, mark(gaps.output)]


def _title(kind: str, fit: RateFit) -> str:
    _, alpha, _, beta, gamma = fit.values
    return f"{kind.capitalize()}: $a L^{{-{alpha:.2f}}} + b L^{{-{beta:.2f}}} M^{{-{gamma:.2f}}}$"
