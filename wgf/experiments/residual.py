"""Residual connections: the conditioning of attention's output, and the linear rate of training that it sets."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from matplotlib.figure import Figure

from .. import plot
from .._checks import at_least
from ..analysis import LinearRate, linear_rate
from ..companions import (
    ResidualTransformer,
    SmoothLeakyReLU,
    Spectrum,
    SquareLoss,
    attention_spectrum,
    linear_rate_bound,
    spectrum,
    step_size,
)
from ..flows import AbstractSolution, FlowSolution, TrainSolution, flow, train
from ._power_law import PowerLaw
from ._progress import Stages
from ._seed import check_seed


@dataclass(frozen=True)
class ResidualConfig:
    """Train one-layer and deep Transformers with and without residual connections; measure conditioning and rate."""

    dim: int = 32
    """The dimension d of a token."""
    hidden: int = 128
    """The width m of the feed-forward network. The theory needs m >= d."""
    lengths: tuple[int, ...] = (4, 8, 16)
    """Tokens in the prompt, N; the second (or only) one is the reference. The theory needs N <= d."""
    temperatures: tuple[float, ...] = (2.0, 8.0, 32.0)
    """Temperatures of the softmax; the second (or only) one is the reference, where descent and the depths run."""
    depths: tuple[int, ...] = (2, 4, 8)
    """Numbers of layers of the multi-layer models, which run at the first of the lengths, besides the single layer."""
    seeds: int = 10
    """Independent draws of data and initial weights in each condition."""
    slope: float = 0.5
    """The least slope gamma of the activation, a smooth leaky ReLU; rates are measured for gamma = 1 as well."""
    horizon: float = 2.5
    """How long to train: tau ends at horizon / sigma_min(X)^2, of the tokens' matrix (the mean over the seeds)."""
    deep_horizon: float = 1.75
    """The same for several layers, each of which adds to the rate."""
    saves: int = 31
    """Equally spaced training times at which everything is measured."""
    step: float = 0.05
    """Gradient descent's learning rate in units of 1 / sigma_max(B)^2."""
    rtol: float = 1e-4
    """The relative tolerance of the flow."""
    seed: int = 0
    """The seed of every random draw."""
    quick: bool = False
    """A size that takes seconds: fewer conditions and smaller models, unless these are given."""
    out: Path | None = None
    """The results folder; by default a new one under results/."""

    @classmethod
    def quick_default(cls) -> "ResidualConfig":
        """The defaults of `--quick`."""
        return cls(lengths=(4,), temperatures=(8.0,), depths=(4,), quick=True)

    @property
    def reference(self) -> tuple[int, float]:
        """The length and temperature of the figure's curves."""
        return self.lengths[min(1, len(self.lengths) - 1)], self.temperatures[min(1, len(self.temperatures) - 1)]


@dataclass(frozen=True)
class Condition:
    """What one group of runs has in common."""

    residual: bool
    length: int
    temperature: float
    slope: float
    depth: int = 1
    descent: bool = False

    @property
    def name(self) -> str:
        """The name of its arrays."""
        kind = "descent" if self.descent else "flow"
        where = f"n{self.length}_t{self.temperature:g}_g{self.slope:g}_l{self.depth}"
        return f"{kind}_{_word(self.residual)}_{where}"


@dataclass(frozen=True)
class Runs:
    """The runs of one condition, one for each seed.

    - `times`: training times τ (of gradient descent: learning rate × steps), `[seeds, saves]`.
    - `loss`, `dissipation`, `bound`: L, −dL/dτ and the guaranteed rate, `[seeds, saves]`.
    - `least`, `greatest`: the extreme singular values of each layer's attention output, `[seeds, saves, depth]`.
    """

    condition: Condition
    times: Float[np.ndarray, "seeds saves"]
    loss: Float[np.ndarray, "seeds saves"]
    dissipation: Float[np.ndarray, "seeds saves"]
    bound: Float[np.ndarray, "seeds saves"]
    least: Float[np.ndarray, "seeds saves depth"]
    greatest: Float[np.ndarray, "seeds saves depth"]

    @cached_property
    def fits(self) -> tuple[LinearRate, ...]:
        """The line through each seed's log-loss."""
        return tuple(linear_rate(t, loss) for t, loss in zip(self.times, self.loss, strict=True))

    @property
    def rates(self) -> Float[np.ndarray, " seeds"]:
        """The measured rate −d log L/dτ of each seed."""
        return np.array([fit.rate for fit in self.fits])

    @property
    def is_linear(self) -> np.ndarray:
        """Whether each seed's loss falls linearly: over three decades at least, with R² of 0.98 at least."""
        return np.array([fit.span >= 3 and fit.r_squared >= 0.98 for fit in self.fits])

    def within(self, curves: Float[np.ndarray, "seeds saves"]) -> Float[np.ndarray, " seeds"]:
        """The mean of each seed's curve over the window of its fit."""
        windows = (slice(fit.window[0], fit.window[1] + 1) for fit in self.fits)
        return np.array([curve[window].mean() for curve, window in zip(curves, windows, strict=True)])

    @property
    def conditions(self) -> Float[np.ndarray, "seeds saves"]:
        """The condition number of the last layer's attention output."""
        return self.layers[..., -1]

    @property
    def layers(self) -> Float[np.ndarray, "seeds saves depth"]:
        """The condition number of each layer's attention output."""
        return np.asarray(Spectrum(jnp.asarray(self.least), jnp.asarray(self.greatest)).condition)

    @property
    def slack(self) -> Float[np.ndarray, "seeds saves"]:
        """The instantaneous rate over the guaranteed one: never below 1 where the theorem speaks."""
        return self.dissipation / (self.loss * self.bound)


@dataclass(frozen=True)
class ResidualResult:
    """All runs of one call of the experiment."""

    config: ResidualConfig
    runs: tuple[Runs, ...]

    def find(self, **wanted: Any) -> list[Runs]:
        """The runs whose conditions have the given fields."""
        return [r for r in self.runs if all(getattr(r.condition, k) == v for k, v in wanted.items())]

    def rate_law(self, *, slope: float, descent: bool = False) -> PowerLaw:
        """The rate against σ_min(B)², over the one-layer runs of an activation that fell linearly.

        For gradient descent both are multiplied by the learning rate, which is in proportion to σ_max(B)⁻².
        """
        return PowerLaw.fit(*self._law_points(slope, descent, (True, False)))

    def _law_points(self, slope: float, descent: bool, residual: Iterable[bool]) -> tuple[np.ndarray, np.ndarray]:
        runs = [r for r in self.find(depth=1, slope=slope, descent=descent) if r.condition.residual in residual]
        steps = [self._learning_rates(r) if descent else np.ones(len(r.loss)) for r in runs]
        squares = [h * r.within(r.least[..., -1] ** 2) for h, r in zip(steps, runs, strict=True)]
        rates = [h * r.rates for h, r in zip(steps, runs, strict=True)]
        linear = np.concatenate([r.is_linear for r in runs])
        return np.concatenate(squares)[linear], np.concatenate(rates)[linear]

    def _learning_rates(self, runs: Runs) -> np.ndarray:
        return self.config.step / runs.greatest[:, 0].max(axis=-1) ** 2

    def table(self) -> str:
        """The table that the command prints: a line for each condition."""
        head = (
            f"{'':7} {'residual':>8} {'L':>2} {'N':>3} {'T':>4} {'gamma':>5} {'cond.':>8} {'at end':>8} "
            f"{'s_min^2':>8} {'decades':>7} {'R2':>7} {'linear':>6} {'rate':>8} {'rate/s2':>7} "
            f"{'bound':>7} {'slack':>7}"
        )
        lines = [head, "-" * len(head), *map(_line, self.runs), "-" * len(head), *self._notes()]
        return "\n".join(lines)

    def _notes(self) -> list[str]:
        config = self.config
        notes = [
            f"d = {config.dim}, m = {config.hidden}, {config.seeds} seeds; cond.: condition number of the last "
            "attention output B (medians);",
            "s_min^2: of B, mean over the fit (median); decades fallen and R2 of the fit (from the first decade to the "
            "fifth): worst seed;",
            "linear: seeds with R2 >= 0.98 over three decades at least; rate: -d log L/dtau (median);",
            "bound: 2 gamma^2 s_min(B)^2 s_min(W_2)^2 at the start (median); slack: instantaneous rate / bound, the "
            "least of all",
        ]
        slope = config.slope
        factors = [self._improvement(r) for r in self.find(residual=True, slope=slope, depth=1, descent=False)]
        medians = [float(np.median(factor)) for factor in factors]
        notes += [
            "one layer: the residual connection improves the condition number at the start",
            f"{min(medians):.3g} to {max(medians):.3g} times (medians), {np.min(factors):.3g} times for the worst seed",
        ]
        laws = {
            f"rate against s_min^2, gamma = {slope:g}": {"slope": slope},
            "rate against s_min^2, gamma = 1": {"slope": 1.0},
            f"descent's rate a step against (s_min/s_max)^2, gamma = {slope:g}": {"slope": slope, "descent": True},
        }
        notes += [f"{name}: {self.rate_law(**law)}" for name, law in laws.items()]
        return notes

    def _improvement(self, runs: Runs) -> Float[np.ndarray, " seeds"]:
        """How many times better conditioned B is at the start than without the connection, for each seed."""
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

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`: of each condition, with leading axes `[seeds, saves]`."""
        fields = ("times", "loss", "dissipation", "bound", "least", "greatest")
        return {f"{r.condition.name}_{field}": getattr(r, field) for r in self.runs for field in fields}

    def figure(self) -> Figure:
        """Loss and condition number along training, the law of the rate, and depth."""
        figure = Figure(figsize=(12.5, 7.4), layout="constrained")
        grid = figure.subplots(2, 3)
        length, temperature = self.config.reference
        reference = self.find(length=length, temperature=temperature, slope=self.config.slope, depth=1, descent=False)
        title = f"one layer, N = {length}, T = {temperature:g}"
        plot.bundles(
            grid[0, 0], {_name(r): (r.times, r.loss) for r in reference}, "training time τ", "loss L", f"Loss: {title}"
        )
        plot.bundles(
            grid[0, 1],
            {_name(r): (r.times, r.conditions) for r in reference},
            "training time τ",
            "condition number of B",
            "Conditioning along training",
        )
        self._figure_start(grid[0, 2])
        self._figure_law(grid[1, 0])
        self._figure_depth(grid[1, 1], grid[1, 2])
        return figure

    def _figure_start(self, axes) -> None:
        """Condition numbers at the start, with the range over seeds, against temperature."""
        lines = {}
        for residual in (True, False):
            for length in self.config.lengths:
                runs = self.find(residual=residual, length=length, slope=self.config.slope, depth=1, descent=False)
                starts = np.stack([r.conditions[:, 0] for r in runs])
                lines[f"N = {length}, {_word(residual)}"] = (np.array([r.condition.temperature for r in runs]), starts)
        plot.ranges(axes, lines, "temperature T", "condition number of B", "Conditioning at the start (range of seeds)")

    def _figure_law(self, axes) -> None:
        groups = {}
        for slope in sorted({self.config.slope, 1.0}):
            law, (x, y) = self.rate_law(slope=slope), self._law_points(slope, False, (True, False))
            ends = np.array([x.min(), x.max()])
            groups[f"γ = {slope:g}: exponent {law.slope:.2f} ± {law.interval:.2f}"] = (x, y, ends, law(ends))
        plot.power_laws(axes, groups, ("σ_min(B)²", "rate −d log L/dτ"), "The rate of training (all linear runs)")

    def _figure_depth(self, losses, conditions) -> None:
        length, (_, temperature) = self.config.lengths[0], self.config.reference
        runs = self.find(length=length, temperature=temperature, slope=self.config.slope, descent=False)
        curves = {
            f"{r.condition.depth} layer{'s' * (r.condition.depth > 1)}, {_word(r.condition.residual)}": r
            for r in sorted(runs, key=lambda r: (not r.condition.residual, r.condition.depth))
        }
        medians = {name: (r.times[0], np.median(r.loss / r.loss[:, :1], axis=0)) for name, r in curves.items()}
        plot.families(losses, medians, "training time τ", "loss L / L(0)", f"Depth, N = {length}: loss (medians)")
        losses.get_legend().remove()  # the next panel's serves both
        layers = {
            name: (np.arange(1, r.condition.depth + 1), np.median(r.layers[:, 0], axis=0)) for name, r in curves.items()
        }
        plot.families(
            conditions, layers, "layer", "condition number of B", f"Depth, N = {length}: at the start (κ ≤ 1/ε)"
        )


def _word(residual: bool) -> str:
    return "with" if residual else "without"


def _name(runs: Runs) -> str:
    return f"{_word(runs.condition.residual)} residual connections"


def _line(runs: Runs) -> str:
    condition, fits = runs.condition, runs.fits
    squares = runs.within(runs.least[..., -1] ** 2)
    slack = f"{np.min(runs.slack):7.3g}" if np.all(runs.bound > 0) else f"{'-':>7}"
    return (
        f"{'descent' if condition.descent else 'flow':7} {_word(condition.residual):>8} {condition.depth:2d} "
        f"{condition.length:3d} {condition.temperature:4g} {condition.slope:5g} "
        f"{np.median(runs.conditions[:, 0]):8.3g} {np.median(runs.conditions[:, -1]):8.3g} "
        f"{np.median(squares):8.2g} {min(f.fallen for f in fits):7.2f} {min(f.r_squared for f in fits):7.4f} "
        f"{runs.is_linear.sum():3d}/{len(fits):2d} {np.median(runs.rates):8.3g} "
        f"{np.median(runs.rates / squares):7.2g} {np.median(runs.bound[:, 0]):7.2g} {slack}"
    )


def run(config: ResidualConfig, *, show_progress: bool | None = None) -> ResidualResult:
    """Run every condition: lengths and temperatures of one layer, gradient descent at each length, and the depths.

    **Arguments:**

    - `config`: [`wgf.experiments.ResidualConfig`][].
    - `show_progress`: whether to draw a progress bar; None for one where standard error is a terminal.

    **Returns:** [`wgf.experiments.ResidualResult`][].

    **Raises:** `ValueError` naming the option that cannot be used, before anything is compiled.
    """
    _check(config)
    conditions = _conditions(config)
    # One program is compiled while another runs.
    with Stages(len(conditions), show_progress, at_once=2) as stages:
        runs = [stages.start(c.name.replace("_", " "), _run, config, c) for c in conditions]
        return ResidualResult(config, tuple(each.result() for each in runs))


def _check(config: ResidualConfig) -> None:
    check_seed(config.seed)
    for name in ("dim", "hidden", "seeds"):
        at_least(name, getattr(config, name), 1)
    at_least("saves", config.saves, 3)
    for name in ("lengths", "temperatures"):
        if not getattr(config, name):
            raise ValueError(f"`{name}` must hold at least one; got none.")
    for name in ("lengths", "depths"):
        for count in getattr(config, name):
            at_least(name, count, 1)
    SmoothLeakyReLU(config.slope)
    if max(config.lengths) > config.dim:
        raise ValueError(f"`lengths` must be at most `dim`, {config.dim}, where the theory ends; got {config.lengths}.")
    if min(config.temperatures) <= 0:
        raise ValueError(f"`temperatures` must be positive; got {config.temperatures}.")


def _conditions(config: ResidualConfig) -> list[Condition]:
    _, temperature = config.reference
    both, slope = (True, False), config.slope
    single = [Condition(r, n, t, slope) for n in config.lengths for r in both for t in config.temperatures]
    linear = [Condition(True, n, temperature, 1.0) for n in config.lengths if slope != 1]
    descent = [Condition(r, n, temperature, slope, descent=True) for n in config.lengths for r in both]
    deep = [Condition(r, config.lengths[0], temperature, slope, depth) for depth in config.depths for r in both]
    return [*single, *linear, *descent, *deep]


def _run(_, config: ResidualConfig, condition: Condition) -> Runs:
    loss, model = _draw(config, condition)
    horizon = config.horizon if condition.depth == 1 else config.deep_horizon
    # The same with and without residual connections, and for all seeds: it is set by the tokens alone.
    time = horizon / float(jnp.mean(spectrum(loss.tokens[:, 0]).least ** 2))
    solve = _descend if condition.descent else _flow
    times, measured = solve(config, loss, model, time)
    return Runs(condition, np.asarray(times), *map(np.asarray, measured))


def _draw(config: ResidualConfig, condition: Condition) -> tuple[SquareLoss, ResidualTransformer]:
    """The loss and the model of every seed, the same data and draws with and without residual connections."""
    shape = (1, condition.length, config.dim)

    def draw(key: PRNGKeyArray) -> tuple[SquareLoss, ResidualTransformer]:
        tokens, targets, weights = jax.random.split(key, 3)
        model = ResidualTransformer(
            config.dim,
            config.hidden,
            depth=condition.depth,
            residual=condition.residual,
            slope=condition.slope,
            key=weights,
        )
        loss = SquareLoss(jax.random.normal(tokens, shape), jax.random.normal(targets, shape), condition.temperature)
        return loss, model

    # Each length, temperature and depth has draws of its own: the regression of rates takes them as independent.
    key = jax.random.key(config.seed)
    for label in (condition.length, config.temperatures.index(condition.temperature), condition.depth):
        key = jax.random.fold_in(key, label)
    return eqx.filter_vmap(draw)(jax.random.split(key, config.seeds))


def _flow(config: ResidualConfig, loss: SquareLoss, model: ResidualTransformer, time: float):
    taus = jnp.linspace(0, time, config.saves)
    solution = _flows(loss, model, taus, jnp.asarray(config.rtol))
    return jnp.broadcast_to(taus, (config.seeds, config.saves)), _measure(loss, solution)


@eqx.filter_jit
def _flows(loss: SquareLoss, model: ResidualTransformer, taus: Array, rtol: Array) -> FlowSolution:
    """The flow of every seed."""

    def solve(loss, model):
        return flow(loss, model, taus, rtol=rtol, atol=1e-3 * rtol, throw=False)

    return eqx.filter_vmap(solve)(loss, model)


def _descend(config: ResidualConfig, loss: SquareLoss, model: ResidualTransformer, time: float):
    steps = jax.vmap(lambda loss, model: step_size(loss, model, config.step))(loss, model)
    every = max(1, round(time / (float(jnp.mean(steps)) * (config.saves - 1))))
    solution = _descents(loss, model, steps, every, config.saves)
    return steps[:, None] * solution.steps, _measure(loss, solution)


@eqx.filter_jit
def _descents(loss: SquareLoss, model: ResidualTransformer, steps: Array, every: int, saves: int) -> TrainSolution:
    """Gradient descent of every seed, at learning rates `steps`."""

    def solve(loss, model, step):
        return train(loss, model, optax.sgd(step), steps=every * (saves - 1), save_every=every, throw=False)

    return eqx.filter_vmap(solve)(loss, model, steps)


def _measure(loss: SquareLoss, solution: AbstractSolution) -> tuple[Array, ...]:
    """L, −dL/dτ, the guaranteed rate and the extreme singular values along training."""
    return solution.objective, solution.dissipation, *_conditioning(loss, solution.models)


@eqx.filter_jit
def _conditioning(loss: SquareLoss, models: ResidualTransformer) -> tuple[Array, Array, Array]:
    def at(loss, model):
        values = attention_spectrum(loss, model)
        return linear_rate_bound(loss, model), values.least, values.greatest

    along = eqx.filter_vmap(at, in_axes=(None, eqx.if_array(0)))
    return eqx.filter_vmap(along)(loss, models)
