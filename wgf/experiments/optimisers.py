"""Optimisers against gradient flow: the orders of gradient descent and of SGD's noise, and where Adam goes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray
from matplotlib.figure import Figure
from scipy import stats

from .. import plot
from .._checks import at_least
from ..encoders import Average, Perceptron, SoftmaxAttention
from ..flows import FlowSolution
from ..measures import Gaussian
from ..models import Transformer
from ..objective import Objective
from ..prompts import linear_regression
from ._optimiser_runs import Adam, End, adam, descend, flows, normalised_flow, response
from ._progress import Progress
from ._seed import check_seed

Problem = tuple[Objective, Transformer]
"""The objectives and models of all seeds, stacked."""
_SHARP = 1e-8
"""Optax's own epsilon of Adam."""


@dataclass(frozen=True)
class OptimisersConfig:
    """Train Transformers by gradient descent, SGD, Adam and AdamW at ever smaller steps; measure the distance to the
    gradient flow, and to the limit that each has of its own.
    """

    prompts: int = 16
    """In-context regression prompts of each problem."""
    examples: int = 4
    """Labelled examples in a prompt."""
    dim: int = 2
    """The dimension of an input."""
    depth: int = 4
    """Layers L of the Transformers."""
    width: int = 8
    """Heads and neurons M in a layer."""
    scale: float = 0.7
    """The standard deviation of the initial parameters."""
    weight_decay: float = 1e-3
    """The weight decay lambda: of the objective, but with AdamW the optimiser's own."""
    tau: float = 4.0
    """The training time at which gradient descent and SGD are compared with the flow."""
    steps: tuple[float, ...] = (0.4, 0.2, 0.1, 0.05, 0.025)
    """Learning rates h of gradient descent and SGD, each tau over a whole number; the second is that of the batches."""
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Batch sizes of SGD, prompts drawn with replacement; the second is that of the steps."""
    replicates: int = 64
    """Runs of SGD from each start, which differ in their batches alone."""
    adam_tau: float = 0.5
    """The training time (updates times learning rate) at which Adam and AdamW are compared with their limit."""
    adam_updates: tuple[int, ...] = (100, 200, 400, 800, 1600)
    """The numbers of Adam's updates in that time."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Adam's rates of forgetting, of the gradient and of its square."""
    epsilon: float = 1e-2
    """Adam's epsilon where its limit is measured: gradients in the mean-field scale are 1e-4 to 1e-1 here."""
    long_tau: float = 200.0
    """The end of the flow in the comparison of paths."""
    long_updates: int = 500
    """Updates of each optimiser there, gradient descent and SGD at learning rate long_tau / long_updates."""
    rate: float = 1e-2
    """Adam's learning rate there, with Optax's own epsilon 1e-8."""
    seeds: int = 8
    """Independent problems and initial parameters."""
    seed: int = 0
    """The seed of every random draw."""
    quick: bool = False
    """A size that takes seconds: fewer steps, batches, replicates and seeds, unless these are given."""
    out: Path | None = None
    """The results folder; by default a new one under results/."""

    @classmethod
    def quick_default(cls) -> "OptimisersConfig":
        """The defaults of `--quick`."""
        return cls(
            steps=(0.4, 0.2, 0.1, 0.05),
            batches=(1, 4, 16),
            replicates=16,
            adam_updates=(100, 200, 400, 800),
            long_tau=80.0,
            long_updates=200,
            seeds=4,
            quick=True,
        )

    @property
    def chunk(self) -> int:
        """The updates of one compiled run of gradient descent; runs of several steps are made of it."""
        return math.gcd(*(round(self.tau / step) for step in self.steps))


@dataclass(frozen=True)
class Order:
    """A quantity `[points, seeds]` against `x`: a power law for each seed, `exponent` ± `interval` (95 %) over them."""

    x: Float[np.ndarray, " points"]
    y: Float[np.ndarray, "points seeds"]

    @property
    def exponents(self) -> Float[np.ndarray, " seeds"]:
        """The slope of log y against log x, of each seed."""
        return np.polyfit(np.log(self.x), np.log(self.y), 1)[0]

    @property
    def exponent(self) -> float:
        """The mean of the seeds' exponents."""
        return float(self.exponents.mean())

    @property
    def interval(self) -> float:
        """Half the width of the exponent's 95 % interval, by Student's t over the seeds."""
        count = len(self.exponents)
        return float(stats.t.ppf(0.975, count - 1) * self.exponents.std(ddof=1) / np.sqrt(count))

    def last(self, points: int) -> "Order":
        """The same of the last points alone."""
        return Order(self.x[-points:], self.y[-points:])

    def __str__(self) -> str:
        return f"{self.exponent:.3f} ± {self.interval:.3f}"


@dataclass(frozen=True)
class Noise:
    """The variance of SGD's outputs and of its risk over batches, against the step or against the batch size.

    `response` is what the linear response of gradient descent has for the outputs, `[points, seeds]`.
    """

    outputs: Order
    risk: Order
    response: Float[np.ndarray, "points seeds"]

    @property
    def ratio(self) -> Float[np.ndarray, " points"]:
        """Measured over predicted variance of the outputs, the mean over the seeds."""
        return np.mean(self.outputs.y / self.response, axis=1)


@dataclass(frozen=True)
class Course:
    """A long run: risk against updates, and how far outputs are from the flow's where the flow has the same risk.

    Both `[saves, seeds]`; `apart` is the RMS over prompts, NaN where the risk is below all of the flow's.
    """

    updates: np.ndarray
    risk: Float[np.ndarray, "saves seeds"]
    apart: Float[np.ndarray, "saves seeds"]


@dataclass(frozen=True)
class OptimisersResult:
    """All that one call of the experiment measured.

    - `descent`: the distance of gradient descent's outputs from the flow's at τ, against the step.
    - `by_step`, `by_batch`: SGD's noise.
    - `adam`, `adamw`: the distance of their outputs from those of their own limit, against the learning rate.
    - `sharp`: Adam with Optax's own epsilon 1e-8, whose limit would be the discontinuous sign flow: the distance from
      itself at the least of the learning rates, against the difference of the two.
    - `limits_apart`: the distance of Adam's and of AdamW's limit from the gradient flow at equal risk, `[2, seeds]`.
    - `courses`: long runs by name.
    """

    config: OptimisersConfig
    label_rms: float
    descent: Order
    by_step: Noise
    by_batch: Noise
    adam: Order
    adamw: Order
    sharp: Order
    limits_apart: Float[np.ndarray, "2 seeds"]
    courses: dict[str, Course]

    def table(self) -> str:
        """The tables that the command prints: orders, then long runs."""
        config = self.config
        rows = [
            ("gradient descent: distance of outputs from the flow, step", "1", self.descent),
            ("the same, last three steps", "1", self.descent.last(3)),
            ("SGD: variance of outputs, step", "1", self.by_step.outputs),
            ("SGD: variance of outputs, batch size", "-1", self.by_batch.outputs),
            ("SGD: variance of the risk, step", "1", self.by_step.risk),
            ("SGD: variance of the risk, batch size", "-1", self.by_batch.risk),
            ("Adam: distance from its own limit, learning rate", "1", self.adam),
            ("the same, last three rates", "1", self.adam.last(3)),
            ("AdamW: distance from its own limit, learning rate", "1", self.adamw),
            ("the same, last three rates", "1", self.adamw.last(3)),
            (f"Adam, eps = {_SHARP:g}: from itself at the least rate, difference", "-", self.sharp),
        ]
        head = f"{'exponent of':<60} {'theory':>6} {'measured, 95 %':>17} {'largest':>9} {'smallest':>9}"
        rule = "-" * len(head)
        lines = [
            f"{name:<60} {theory:>6} {order!s:>17} {order.y.mean(1).max():9.2e} {order.y.mean(1).min():9.2e}"
            for name, theory, order in rows
        ]
        ratios = np.concatenate([self.by_step.ratio, self.by_batch.ratio])
        notes = [
            f"means over {config.seeds} seeds; distances: RMS over {config.prompts} prompts, whose labels have RMS "
            f"{self.label_rms:.3f}",
            f"SGD's variance over the linear response of gradient descent: {ratios.min():.3f} to {ratios.max():.3f}",
            f"limit of Adam: v/(|v| + eps) with eps = {config.epsilon:g} (AdamW: and its decay), by Diffrax;",
            "their distance from the gradient flow, both at equal risk: "
            f"Adam {self.limits_apart[0].mean():.4f}, AdamW {self.limits_apart[1].mean():.4f}",
        ]
        long_head = (
            f"{'long runs, at the end':<42} {'updates':>8} {'risk':>10} {'apart from the flow at equal risk, most':>41}"
        )
        courses = [_row(name, course) for name, course in self.courses.items()]
        return "\n".join([head, rule, *lines, rule, *notes, "", long_head, "-" * len(long_head), *courses])

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`."""
        kept: dict[str, Any] = {}
        orders = {"descent": self.descent, "adam": self.adam, "adamw": self.adamw, "sharp": self.sharp}
        for name in ("by_step", "by_batch"):
            noise: Noise = getattr(self, name)
            orders |= {f"{name}_outputs": noise.outputs, f"{name}_risk": noise.risk}
            kept[f"{name}_response"] = noise.response
        for name, order in orders.items():
            kept |= {f"{name}_x": order.x, f"{name}_y": order.y}
        for index, course in enumerate(self.courses.values()):
            kept |= {f"course_{index}_{f}": getattr(course, f) for f in ("updates", "risk", "apart")}
        return kept | {"limits_apart": self.limits_apart, "courses": np.array(list(self.courses))}

    def figure(self) -> Figure:
        """Orders above; SGD's noise against the batch size and the long runs below."""
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
        smooth, sharp = f", ε = {self.config.epsilon:g}", f"Adam, ε = {_SHARP:g}, to itself"
        orders = {f"Adam{smooth}": self.adam, f"AdamW{smooth}": self.adamw, sharp: self.sharp}
        _draw(adam, orders, ("learning rate h", distance), "Adam to its own limit")
        plot.courses(
            risk,
            {n: (c.updates, c.risk.mean(1)) for n, c in self.courses.items()},
            ("updates", "risk R"),
            "Long runs (means over seeds)",
        )
        plot.courses(
            apart,
            {n: (c.risk.mean(1), c.apart.mean(1)) for n, c in self.courses.items()},
            ("risk R", "distance of outputs (RMS)"),
            "From the flow, at equal risk",
            backwards=True,
        )
        return figure


def _row(name: str, course: Course) -> str:
    apart = course.apart[np.isfinite(course.apart).all(axis=1)]
    return f"{name:<42} {course.updates[-1]:8d} {course.risk[-1].mean():10.2e} {apart.mean(1).max():41.4f}"


def _draw(axes: Any, orders: dict[str, Order], labels: tuple[str, str], title: str) -> None:
    groups = {}
    for name, order in orders.items():
        line = np.exp(np.polyval(np.polyfit(np.log(order.x), np.log(order.y).mean(1), 1), np.log(order.x)))
        spread = np.broadcast_to(order.x[:, None], order.y.shape)
        groups[f"{name}: {order}"] = (spread, order.y, order.x, line)
    plot.power_laws(axes, groups, labels, title)


def run(config: OptimisersConfig, *, show_progress: bool | None = None) -> OptimisersResult:
    """Run gradient descent, SGD, Adam and AdamW at every step, and the long runs.

    **Arguments:**

    - `config`: [`wgf.experiments.OptimisersConfig`][].
    - `show_progress`: whether to draw a progress bar; None for one where standard error is a terminal.

    **Returns:** [`wgf.experiments.OptimisersResult`][].

    **Raises:** `ValueError` naming the option that cannot be used, before anything is compiled.
    """
    _check(config)
    draw_key, sgd_key, path_key = jax.random.split(jax.random.key(config.seed), 3)
    draw = lambda key: _draw_problem(config, key)  # noqa: E731
    problem = eqx.filter_vmap(draw)(jax.random.split(draw_key, config.seeds))
    with Progress(4, show_progress) as progress:
        with progress.stage("gradient descent"):
            flowed, along = _flow(config, problem)
            descent = _descent_order(config, problem, flowed)
        with progress.stage("noise of SGD"):
            by_step, by_batch = _noise(config, problem, sgd_key)
        with progress.stage("Adam and AdamW"):
            adam, adamw, sharp, apart = _adam_orders(config, problem, along)
        with progress.stage("long runs"):
            courses = _courses(config, problem, along, path_key)
    label_rms = float(np.sqrt(np.mean(np.asarray(problem[0].prompts.labels) ** 2)))
    return OptimisersResult(config, label_rms, descent, by_step, by_batch, adam, adamw, sharp, apart, courses)


def _check(config: OptimisersConfig) -> None:
    check_seed(config.seed)
    for name in ("prompts", "examples", "dim", "depth", "width", "long_updates"):
        at_least(name, getattr(config, name), 1)
    for name in ("seeds", "replicates"):
        at_least(name, getattr(config, name), 2)
    for name in ("steps", "batches", "adam_updates"):
        if len(getattr(config, name)) < 3:
            raise ValueError(
                f"`{name}` must hold at least three numbers, to fit an exponent; got {getattr(config, name)}."
            )
    if any(a >= b for a, b in pairwise(config.adam_updates)):
        raise ValueError(f"`adam_updates` must increase; got {config.adam_updates}.")
    for name in ("batches", "adam_updates"):
        for count in getattr(config, name):
            at_least(name, count, 1)
    for step in config.steps:
        if not step > 0 or abs(config.tau / step - round(config.tau / step)) > 1e-6:
            raise ValueError(
                f"`steps` must each fit a whole number of times into `tau` = {config.tau:g}; got {step:g}."
            )
    if config.long_updates % config.chunk:
        raise ValueError(
            f"`long_updates` must be a multiple of {config.chunk}, the updates that all `steps` have in common; got "
            f"{config.long_updates}."
        )


def _draw_problem(config: OptimisersConfig, key: PRNGKeyArray) -> tuple[Objective, Transformer]:
    data_key, init_key = jax.random.split(key)
    prompts = linear_regression(data_key, batch=config.prompts, examples=config.examples, dim=config.dim)
    encoder = Average(SoftmaxAttention(prompts.token_dim, key_dim=2), Perceptron(prompts.token_dim, jnp.tanh))
    law = Gaussian(encoder, config.scale)
    model = Transformer(encoder, law.layered(config.depth, config.width, init_key))
    return Objective(prompts, config.weight_decay), model


def _flow(config: OptimisersConfig, problem: Problem) -> tuple[np.ndarray, FlowSolution]:
    """The flow's outputs at `tau`, and the flow along times up to ten times `long_tau`."""
    along = np.geomspace(0.01, 10 * config.long_tau, 160)
    taus = np.unique(np.concatenate([[0.0, config.tau], along]).astype(np.float32))
    solution = flows(*problem, jnp.asarray(taus), 1e-6)
    return np.asarray(solution.outputs[:, np.searchsorted(taus, np.float32(config.tau))]), solution


def _descent_order(config: OptimisersConfig, problem: Problem, flowed: np.ndarray) -> Order:
    errors = [_distance(_descend(config, problem, step).outputs[-1], flowed) for step in config.steps]
    return Order(np.array(config.steps), np.stack(errors))


def _descend(config: OptimisersConfig, problem: Problem, step: float, **options: Any) -> End:
    return descend(*problem, step, round(config.tau / step), chunk=config.chunk, **options)


def _noise(config: OptimisersConfig, problem: Problem, key: PRNGKeyArray) -> tuple[Noise, Noise]:
    """SGD at every step with the second batch size, and at the second step with every batch size."""
    step, batch = config.steps[1], config.batches[1]
    unit = np.asarray(response(*problem, step, round(config.tau / step))) / step

    def runs(points: Sequence[tuple[float, int]], x: Sequence[float | int], label: int) -> Noise:
        variances = []
        for index, (h, b) in enumerate(points):
            keys = _replicates(config, jax.random.fold_in(jax.random.fold_in(key, label), index))
            end = _descend(config, problem, h, batch=b, keys=keys)
            outputs, risk = (np.var(np.asarray(part[-1], float), axis=1, ddof=1) for part in end)
            variances.append([outputs.mean(-1), risk])
        outputs, risk = (Order(np.array(x, float), np.stack(part)) for part in zip(*variances, strict=True))
        return Noise(outputs, risk, np.stack([unit * h / b for h, b in points]))

    return (
        runs([(h, batch) for h in config.steps], config.steps, 0),
        runs([(step, b) for b in config.batches], config.batches, 1),
    )


def _replicates(config: OptimisersConfig, key: PRNGKeyArray) -> Key[Array, "seeds replicates"]:
    return jax.random.split(key, (config.seeds, config.replicates))


def _adam_orders(
    config: OptimisersConfig, problem: Problem, flowed: FlowSolution
) -> tuple[Order, Order, Order, np.ndarray]:
    """Adam with the objective's weight decay, and AdamW with as much of its own and none in the objective."""
    rates = np.array([config.adam_tau / count for count in config.adam_updates])
    orders, apart = [], []
    for objectives, decay in _variants(config, problem[0]):
        limit = normalised_flow(objectives, problem[1], config.adam_tau, config.epsilon, jnp.asarray(decay))
        ended = _refined(config, objectives, problem[1], decay, config.epsilon)
        orders.append(Order(rates, _distance(ended, limit.outputs)))
        apart.append(_apart(np.asarray(limit.risk)[None], np.asarray(limit.outputs)[None], flowed)[0])
    ended = _refined(config, *problem, 0.0, _SHARP)
    sharp = Order(rates[:-1] - rates[-1], _distance(ended[:-1], ended[-1]))
    return orders[0], orders[1], sharp, np.stack(apart)


def _refined(config: OptimisersConfig, objectives: Objective, models: Transformer, decay: float, epsilon: float):
    """The outputs at `adam_tau` of every rate, `[rates, seeds, prompts]`.

    All rates run at once, for as many updates as the least needs; each is read where it has run for `adam_tau`.
    """
    counts = config.adam_updates
    shared = math.gcd(*counts)
    rates = [config.adam_tau / count for count in counts]
    every = [objectives] * len(counts)
    outputs = np.asarray(_adam(config, every, models, rates, decay, epsilon, max(counts), shared).outputs)
    return np.stack([outputs[index, :, count // shared] for index, count in enumerate(counts)])


def _variants(config: OptimisersConfig, objectives: Objective) -> tuple[tuple[Objective, float], ...]:
    bare = eqx.tree_at(lambda o: o.weight_decay, objectives, jnp.zeros_like(objectives.weight_decay))
    return (objectives, 0.0), (bare, config.weight_decay)


def _adam(config, objectives: list[Objective], models, rates, decay, epsilon: float, updates: int, every: int):
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *objectives)
    rows = np.broadcast_arrays(np.array(rates), *config.betas, epsilon, decay)
    return adam(
        stacked, models, Adam(*(jnp.asarray(row, jnp.result_type(float)) for row in rows)), updates, updates // every
    )


def _courses(config: OptimisersConfig, problem: Problem, flowed: FlowSolution, key: PRNGKeyArray) -> dict[str, Course]:
    objectives, models = problem
    step, batch = config.long_tau / config.long_updates, config.batches[1]
    updates = np.arange(config.chunk, config.long_updates + 1, config.chunk)
    long: Any = {"updates": config.long_updates, "chunk": config.chunk}
    descent = descend(objectives, models, step, **long)
    noisy = descend(objectives, models, step, batch=batch, keys=_replicates(config, key), **long)
    variants = _variants(config, objectives)
    pair = _adam(
        config,
        [objective for objective, _ in variants],
        models,
        [config.rate] * 2,
        [decay for _, decay in variants],
        _SHARP,
        config.long_updates,
        config.chunk,
    )
    ends = {
        f"gradient descent, h = {step:g}": descent,
        f"SGD, h = {step:g}, b = {batch}": jax.tree.map(lambda leaf: leaf[:, :, 0], noisy),
    }
    for index, name in enumerate(("Adam", "AdamW")):
        parts = (jnp.swapaxes(part[index, :, 1:], 0, 1) for part in (pair.outputs, pair.risk))
        ends[f"{name}, h = {config.rate:g}"] = End(*parts)
    return {name: _course(updates, end, flowed) for name, end in ends.items()}


def _course(updates: np.ndarray, end: End, flowed: FlowSolution) -> Course:
    risk, outputs = np.asarray(end.risk), np.asarray(end.outputs)
    return Course(updates, risk, _apart(risk, outputs, flowed))


def _apart(risk: np.ndarray, outputs: np.ndarray, flowed: FlowSolution) -> np.ndarray:
    """The distance of outputs `[saves, seeds, prompts]` from the flow's interpolated at equal risk."""
    apart = np.full(risk.shape, np.nan)
    for seed, (falls, course) in enumerate(zip(np.asarray(flowed.risk), np.asarray(flowed.outputs), strict=True)):
        order = np.argsort(falls)
        theirs = np.stack([np.interp(risk[:, seed], falls[order], y[order]) for y in course.T], axis=-1)
        inside = risk[:, seed] >= falls.min()
        apart[:, seed] = np.where(inside, _distance(outputs[:, seed], theirs), np.nan)
    return apart


def _distance(a: Any, b: Any) -> np.ndarray:
    """The RMS over prompts, the last axis."""
    return np.sqrt(np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2, axis=-1))
