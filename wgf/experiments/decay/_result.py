"""The result of `wgf decay`: its table, arrays and figure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ... import plot
from .._failures import brief
from .._power_law import PowerLaw
from .._result import AbstractResult
from .._table import Table
from ._config import DecayConfig

_HEADS = ("data", "start", "lambda", "risk", "Q", "Q/lambda", "bound", "gap/Q", "motion", "", "steps")


@dataclass(frozen=True)
class Rest:
    """The end of one flow.

    - `taus`, `risks`: along the flow, `[saves]`. Risks are shares of the null model's ½ E[y²].
    - `objective`: Q at the end. `bound`: the teacher's Q, an upper bound of the minimum (NaN without a teacher).
    - `motion`: the share of Q that was lost in the last time interval of length 1/λ.
    - `gap`: the optimality certificate of the worst layer, in units of Q.
    - `failure`: why the flow failed; empty if it did not. All numbers of a failed flow are NaN.
    """

    data: str
    planted: bool
    weight_decay: float
    taus: Float[np.ndarray, " saves"]
    risks: Float[np.ndarray, " saves"]
    objective: float
    bound: float
    motion: float
    gap: float
    steps: int
    failure: str = ""

    @classmethod
    def failed(cls, data: str, planted: bool, weight_decay: float, taus: np.ndarray, reason: str) -> "Rest":
        """A flow that failed for a reason. Its numbers are NaN."""
        nan = float("nan")
        return cls(data, planted, weight_decay, taus, np.full(len(taus), nan), nan, nan, nan, nan, 0, reason)

    @property
    def start(self) -> str:
        """The name of the start."""
        return "planted" if self.planted else "rho_0"


@dataclass(frozen=True, repr=False)
class DecayResult(AbstractResult):
    """All flows of one run of the experiment."""

    config: DecayConfig
    ends: tuple[Rest, ...]

    def find(self, name: str, planted: bool = False) -> list[Rest]:
        """The ends of the flows on one data set, from the planted start or from ρ₀."""
        return [end for end in self.ends if (end.data, end.planted) == (name, planted)]

    def is_at_rest(self, end: Rest) -> bool:
        """Whether the flow had come to rest. If not, it was stopped at its horizon."""
        return end.motion <= self.config.rest

    def laws(self, name: str) -> tuple[PowerLaw, PowerLaw]:
        """The final risk and the final Q as powers of λ, over the small weight decays."""
        ends = self._small(name)
        decays = np.array([end.weight_decay for end in ends])
        risks, objectives = (np.array(x) for x in zip(*((end.risks[-1], end.objective) for end in ends), strict=True))
        return PowerLaw.fit(decays, risks), PowerLaw.fit(decays, objectives)

    def _small(self, name: str) -> list[Rest]:
        """The ends at the small weight decays, without the flows that failed."""
        return [end for end in self.find(name) if end.weight_decay <= self.config.small and not end.failure]

    def threshold(self, name: str) -> float:
        """The largest λ such that it and all smaller ones fit the labels; 0 if the smallest does not."""
        largest = 0.0
        for end in sorted(self.find(name), key=lambda end: end.weight_decay):
            # Negated, because NaN is not above anything.
            if not end.risks[-1] <= self.config.fit:
                break
            largest = end.weight_decay
        return largest

    def tables(self) -> tuple[Table, ...]:
        """The table: a row per data set, start and weight decay."""
        rows = [_failed_row(end) if end.failure else self._row(end) for end in self.ends]
        return (Table(_HEADS, rows, left=(0, 1, 9), notes=self._notes(), keys=3),)

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each flow that failed."""
        return tuple(
            f"{end.data}, {end.start}, lambda = {end.weight_decay:g}: {end.failure}" for end in self.ends if end.failure
        )

    def _row(self, end: Rest) -> list[str]:
        return [
            end.data,
            end.start,
            f"{end.weight_decay:.2e}",
            f"{end.risks[-1]:.1e}",
            f"{end.objective:.1e}",
            f"{end.objective / end.weight_decay:.3g}",
            "-" if np.isnan(end.bound) else f"{end.bound / end.weight_decay:.3g}",
            f"{end.gap:.1e}",
            f"{end.motion:.1e}",
            "at rest" if self.is_at_rest(end) else "stopped",
            f"{end.steps}",
        ]

    def _notes(self) -> list[str]:
        config = self.config
        notes = [
            "risk: share of the null model's; Q/lambda: half the mean square of the particles if the risk is 0;",
            "bound: the teacher's Q / lambda, an upper bound of the minimum's; steps: of the flow, in tau;",
            "gap: the certificate, least dQ/drho minus its mean (worst layer): 0 at a global minimum of Q,",
            "below 0: another law has a lower Q; motion: share of Q lost in the last 1/lambda of time;",
            f"at rest: motion <= {config.rest:g}; stopped: still moving at the end, tau = {config.horizon:g} / lambda;",
            "planted: start with keys, queries and neurons at 0, a subspace that the flow cannot leave",
            f"B = {config.batch}, N = {config.examples}; L = {config.depth}, M = {config.width}; rho_0 = "
            f"N(0, {config.scale:g}^2); float64",
        ]
        for name in config.data:
            notes.append(f"{name}: risk <= {config.fit:g} of the null model's up to lambda = {self.threshold(name):g}")
            if len(self._small(name)) >= 3:
                risk, objective = self.laws(name)
                notes += [f"{name}: risk, {risk}", f"{name}: Q, {objective}"]
        return notes

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`, each with leading axis `[flow]`; `taus` and `risks` are `[flow, saves]`."""
        return {
            "data": np.array([end.data for end in self.ends]),
            "failure": np.array([end.failure for end in self.ends]),
            "at_rest": np.array([self.is_at_rest(end) for end in self.ends]),
            **{
                name: np.array([getattr(end, name) for end in self.ends])
                for name in ("planted", "weight_decay", "taus", "risks", "objective", "bound", "motion", "gap", "steps")
            },
        }

    def figure(self) -> Figure:
        """Final risk, Q/λ and the certificate against λ."""
        figure = Figure(figsize=(12.5, 4.8), layout="constrained")
        risk, scaled, gap = figure.subplots(1, 3)
        names = {name: self.find(name) for name in self.config.data}
        names[f"{self.config.data[0]}, planted start"] = self.find(self.config.data[0], planted=True)
        first = self.find(self.config.data[0])
        decays = np.array([end.weight_decay for end in first])
        line = ("proportional to λ", decays, first[-1].risks[-1] * decays / decays[-1])
        bounds = {end.weight_decay: end.bound / end.weight_decay for end in self.ends if np.isfinite(end.bound)}
        bound = ("teacher: proven bound", np.array(list(bounds)), np.array(list(bounds.values()))) if bounds else None
        smallest = "−gap / Q (smaller ones drawn at 1e-6)"
        panels = (
            (risk, line, "final risk / null risk", "Risk at the end", lambda end: end.risks[-1]),
            (scaled, bound, "final Q / λ", "Objective at the end", lambda end: end.objective / end.weight_decay),
            (gap, None, smallest, "Optimality certificate", lambda end: max(-end.gap, 1e-6)),
        )
        for axes, guide, label, title, value in panels:
            curves = {name: self._curve(ends, value) for name, ends in names.items()}
            plot.swept(axes, curves, guide, ("weight decay λ", label), title)
        return figure

    def _curve(self, ends: list[Rest], value: Callable[[Rest], float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        columns = ((end.weight_decay, value(end), self.is_at_rest(end)) for end in ends)
        decays, values, rest = map(np.array, zip(*columns, strict=True))
        return decays, values, rest


def _failed_row(end: Rest) -> str:
    """A row without columns."""
    return f"{end.data}  {end.start}  {end.weight_decay:.2e}  failed: {brief(end.failure)}"
