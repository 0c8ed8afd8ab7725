"""The result of `wgf optimisers`: its tables, arrays and figure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ... import plot
from .._failures import failed, of_seeds
from .._result import AbstractResult
from .._table import Table
from ._adam import OPTAX_EPSILON
from ._config import OptimisersConfig
from ._order import BatchNoise, LongRun, Order

_HEADS = ("exponent of", "theory", "measured, 95 %", "largest", "smallest")
_LONG_HEADS = ("long runs, at the end", "updates", "risk", "largest distance at equal risk")


@dataclass(frozen=True, repr=False)
class OptimisersResult(AbstractResult):
    """All measurements of one run of the experiment.

    - `descent`: the distance of gradient descent's outputs from the flow's at τ, against the step.
    - `by_step`, `by_batch`: SGD's noise.
    - `adam`, `adamw`: the distance of their outputs from those of their own limit, against the learning rate.
    - `sharp`: Adam with Optax's epsilon 1e-8, whose limit would be the discontinuous sign flow. It is the distance from
      the run at the smallest learning rate, against the difference of the two rates.
    - `limits_apart`: the distance of Adam's and of AdamW's limit from the gradient flow at equal risk, `[2, seeds]`.
    - `long_runs`: the long runs by name.
    """

    config: OptimisersConfig
    label_rms: float
    descent: Order
    by_step: BatchNoise
    by_batch: BatchNoise
    adam: Order
    adamw: Order
    sharp: Order
    limits_apart: Float[np.ndarray, "2 seeds"]
    long_runs: dict[str, LongRun]

    def tables(self) -> tuple[Table, ...]:
        """The tables: orders, then long runs."""
        orders = Table(_HEADS, [_order_row(*row) for row in self._orders()], (0,), notes=self._notes())
        notes = ("h: the step or learning rate; b: the batch size; risk: the last one; distance: of outputs, as above",)
        long_runs = Table(_LONG_HEADS, [_long_row(*item) for item in self.long_runs.items()], (0,), notes=notes)
        return orders, long_runs

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each method with seeds that failed."""
        orders = {name: order.y for name, _, order in self._orders() if not name.startswith("the same")}
        risks = {name: run.risk for name, run in self.long_runs.items()}
        return tuple(line for name, values in (orders | risks).items() for line in of_seeds(name, values.T))

    def _orders(self) -> list[tuple[str, str, Order]]:
        """Name, exponent by theory, and measured order of each row."""
        return [
            ("gradient descent: distance from the flow, step", "1", self.descent),
            ("the same, last three steps", "1", self.descent.last(3)),
            ("SGD: variance of outputs, step", "1", self.by_step.outputs),
            ("SGD: variance of outputs, batch size", "-1", self.by_batch.outputs),
            ("SGD: variance of the risk, step", "1", self.by_step.risk),
            ("SGD: variance of the risk, batch size", "-1", self.by_batch.risk),
            ("Adam: distance from its own limit, learning rate", "1", self.adam),
            ("the same, last three rates", "1", self.adam.last(3)),
            ("AdamW: distance from its own limit, learning rate", "1", self.adamw),
            ("the same, last three rates", "1", self.adamw.last(3)),
            (f"Adam, eps = {OPTAX_EPSILON:g}: from itself, difference", "-", self.sharp),
        ]

    def _notes(self) -> list[str]:
        config = self.config
        ratios = np.concatenate([self.by_step.ratio, self.by_batch.ratio])
        return [
            "largest, smallest: the measured quantity, over steps, rates or batch sizes;",
            f"means over {config.seeds} seeds; distances: of outputs, RMS over {config.prompts} prompts; labels "
            f"have RMS {self.label_rms:.3f}",
            f"SGD's variance over the linear response of gradient descent: {ratios.min():.3f} to {ratios.max():.3f}",
            f"limit of Adam: v/(|v| + eps) with eps = {config.epsilon:g} (AdamW: minus its decay), solved by Diffrax;",
            "distance of the limits from the gradient flow at equal risk: "
            f"Adam {self.limits_apart[0].mean():.4f}, AdamW {self.limits_apart[1].mean():.4f}",
        ]

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`."""
        kept: dict[str, Any] = {}
        orders = {"descent": self.descent, "adam": self.adam, "adamw": self.adamw, "sharp": self.sharp}
        for name in ("by_step", "by_batch"):
            noise: BatchNoise = getattr(self, name)
            orders |= {f"{name}_outputs": noise.outputs, f"{name}_risk": noise.risk}
            kept[f"{name}_response"] = noise.response
        for name, order in orders.items():
            kept |= {f"{name}_x": order.x, f"{name}_y": order.y}
        for index, long_run in enumerate(self.long_runs.values()):
            kept |= {f"course_{index}_{f}": getattr(long_run, f) for f in ("updates", "risk", "apart")}
        return kept | {"limits_apart": self.limits_apart, "courses": np.array(list(self.long_runs))}

    def figure(self) -> Figure:
        """Orders above; SGD's noise against the batch size, and the long runs, below."""
        figure = Figure(figsize=(13, 7.6), layout="constrained")
        (descent, step, batch), (adam, risk, apart) = figure.subplots(2, 3)
        distance = "distance of outputs (RMS)"
        _draw(
            descent, {"gradient descent": self.descent}, ("learning rate h", distance), "Gradient descent to the flow"
        )
        for axes, noise, label, fixed in (
            (step, self.by_step, "learning rate h", f"b = {self.config.batches[1]}"),
            (batch, self.by_batch, "batch size b", f"h = {self.config.steps[1]:g}"),
        ):
            _draw(axes, {"outputs": noise.outputs, "risk": noise.risk}, (label, "variance over batches"), "")
            plot.prediction(axes, noise.outputs.x, noise.response.mean(1), "linear response", f"Noise of SGD, {fixed}")
        smooth, sharp = f", ε = {self.config.epsilon:g}", f"Adam, ε = {OPTAX_EPSILON:g}, to itself"
        orders = {f"Adam{smooth}": self.adam, f"AdamW{smooth}": self.adamw, sharp: self.sharp}
        _draw(adam, orders, ("learning rate h", distance), "Adam to its own limit")
        self._draw_long_runs(risk, apart)
        return figure

    def _draw_long_runs(self, risk, apart) -> None:
        plot.courses(
            risk,
            {name: (run.updates, run.risk.mean(1)) for name, run in self.long_runs.items()},
            ("updates", "risk R"),
            "Long runs (means over seeds)",
        )
        plot.courses(
            apart,
            {name: (run.risk.mean(1), run.apart.mean(1)) for name, run in self.long_runs.items()},
            ("risk R", "distance of outputs (RMS)"),
            "The same: from the flow, at equal risk",
            backwards=True,
            legend=None,  # that of the panel beside it
        )


def _order_row(name: str, theory: str, order: Order) -> list[str]:
    means = order.y.mean(1)
    return [name, theory, f"{order}", f"{means.max():.2e}", f"{means.min():.2e}"]


def _long_row(name: str, run: LongRun) -> list[str]:
    apart = run.apart[np.isfinite(run.apart).all(axis=1)]
    return [name, f"{run.updates[-1]}", f"{run.risk[-1].mean():.2e}", f"{apart.mean(1).max():.4f}"]


def _draw(axes: Any, orders: dict[str, Order], labels: tuple[str, str], title: str) -> None:
    groups = {}
    for name, order in orders.items():
        if failed(order.y.T).all():
            continue
        y = order.y[:, ~failed(order.y.T)]
        line = np.exp(np.polyval(np.polyfit(np.log(order.x), np.log(y).mean(1), 1), np.log(order.x)))
        spread = np.broadcast_to(order.x[:, None], order.y.shape)
        groups[f"{name}: {order}"] = (spread, order.y, order.x, line)
    plot.power_laws(axes, groups, labels, title)
