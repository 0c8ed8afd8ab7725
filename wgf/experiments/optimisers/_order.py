"""The measurements of `wgf optimisers`: orders of convergence, SGD's noise, and long runs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from .._failures import failed


@dataclass(frozen=True)
class Order:
    """A quantity `[points, seeds]` against `x`, with a power law fitted for each seed.

    Over the seeds, the exponent is `exponent` ± `interval` (95 %).
    """

    x: Float[np.ndarray, " points"]
    y: Float[np.ndarray, "points seeds"]

    @property
    def exponents(self) -> Float[np.ndarray, " seeds"]:
        """The slope of log y against log x, for each seed that did not fail."""
        return np.polyfit(np.log(self.x), np.log(self.y[:, ~failed(self.y.T)]), 1)[0]

    @property
    def exponent(self) -> float:
        """The mean of the seeds' exponents; NaN if all failed."""
        return float(self.exponents.mean()) if self.exponents.size else float("nan")

    @property
    def interval(self) -> float:
        """Half the width of the exponent's 95 % interval, by Student's t over the seeds."""
        count = len(self.exponents)
        if count < 2:
            return float("nan")
        return float(stats.t.ppf(0.975, count - 1) * self.exponents.std(ddof=1) / np.sqrt(count))

    def last(self, points: int) -> "Order":
        """The order of the last points alone."""
        return Order(self.x[-points:], self.y[-points:])

    def __str__(self) -> str:
        return f"{self.exponent:.3f} ± {self.interval:.3f}"


@dataclass(frozen=True)
class BatchNoise:
    """The variance of SGD's outputs and risk over batches, against the learning rate or the batch size.

    `response` is the prediction for the outputs by the linear response of gradient descent, `[points, seeds]`.
    """

    outputs: Order
    risk: Order
    response: Float[np.ndarray, "points seeds"]

    @property
    def ratio(self) -> Float[np.ndarray, " points"]:
        """Measured over predicted variance of the outputs, averaged over the seeds."""
        return np.mean(self.outputs.y / self.response, axis=1)


@dataclass(frozen=True)
class LongRun:
    """A long run: its risk against updates, and the distance of its outputs from the flow's at equal risk.

    `risk` and `apart` are `[saves, seeds]`. `apart` is the RMS over prompts. It is NaN where the risk is below all of
    the flow's.
    """

    updates: np.ndarray
    risk: Float[np.ndarray, "saves seeds"]
    apart: Float[np.ndarray, "saves seeds"]


def distance(a: Any, b: Any) -> np.ndarray:
    """The RMS difference over prompts, the last axis."""
    return np.sqrt(np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2, axis=-1))


def distance_at_equal_risk(risk: np.ndarray, outputs: np.ndarray, flowed: Any) -> np.ndarray:
    """The distance of outputs `[saves, seeds, prompts]` from the flow's outputs, interpolated at equal risk.

    **Arguments:** `flowed`: what has the flow's `outputs`, `[seeds, saves, prompts]`, and `risk`, `[seeds, saves]`.
    """
    apart = np.full(risk.shape, np.nan)
    flows = zip(np.asarray(flowed.risk), np.asarray(flowed.outputs), strict=True)
    for seed, (flow_risk, flow_outputs) in enumerate(flows):
        order = np.argsort(flow_risk)
        columns = [np.interp(risk[:, seed], flow_risk[order], y[order]) for y in flow_outputs.T]
        inside = risk[:, seed] >= flow_risk.min()
        apart[:, seed] = np.where(inside, distance(outputs[:, seed], np.stack(columns, axis=-1)), np.nan)
    return apart
