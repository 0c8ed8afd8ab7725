"""Images: Vision Transformers of growing width and depth, in the mean-field parametrisation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PRNGKeyArray
from matplotlib.figure import Figure

from .. import plot
from .._backend.precision import Module
from .._checks import at_least
from ..encoders import Average, LayerNorm, Perceptron, SoftmaxAttention
from ..flows import train
from ..measures import Gaussian
from ..models import Transformer
from ..objective import CrossEntropy, Objective, QueryRows
from ..prompts import Prompts, Split, cifar10, digits
from ._config_file import expanded
from ._progress import Progress
from ._seed import check_seed

_CLASSES = 10
_DATA = ("digits", "cifar10")


@dataclass(frozen=True)
class ImagesConfig:
    """Train Vision Transformers of several numbers of heads and of layers; draw loss and accuracy against epochs."""

    data: Literal["digits", "cifar10"] = "digits"
    """The 1,797 handwritten digits that scikit-learn ships, or CIFAR-10 from the files of its binary version."""
    root: Path | None = None
    """The folder of CIFAR-10's data_batch_1.bin to data_batch_5.bin and test_batch.bin."""
    images: int | None = None
    """Train on so many images of CIFAR-10; by default on all of them."""
    patch: int = 4
    """The side of a patch in pixels; a patch is a token."""
    features: int | None = None
    """The rows of a fixed random embedding of patches; by default a token holds the pixels themselves."""
    positions: int = 4
    """Rows of positional encoding."""
    heads: tuple[int, ...] = (4, 10, 20, 40)
    """Heads (and neurons) in a layer, where width is varied; the first is the width where depth is varied."""
    layers: tuple[int, ...] = (1, 2, 6, 12)
    """Layers, where depth is varied."""
    depth: int = 6
    """Layers, where width is varied."""
    key_dim: int = 4
    """The dimension of keys and queries."""
    scale: float = 0.5
    """The standard deviation of the initial parameters."""
    weight_decay: float = 1e-6
    """The weight decay lambda of the objective."""
    epochs: int = 20
    """Passes over the training images, drawn with replacement."""
    batch: int = 128
    """Images in a minibatch."""
    rate: float = 2e-2
    """Adam's first learning rate, which falls to zero along a cosine."""
    saves: int = 10
    """How often loss and accuracy are measured after the start; must divide the epochs."""
    seeds: int = 3
    """Independent initial parameters and minibatches of each size."""
    seed: int = 0
    """The seed of every random draw."""
    quick: bool = False
    """A size that takes seconds: fewer sizes, seeds and epochs, unless these are given."""
    out: Path | None = None
    """The results folder; by default a new one under results/."""

    @classmethod
    def quick_default(cls) -> "ImagesConfig":
        """The defaults of `--quick`."""
        return cls(heads=(4, 10), layers=(1, 6), epochs=8, saves=4, seeds=2, quick=True)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """All pairs of layers and heads, without repetition."""
        wide = [(self.depth, heads) for heads in self.heads]
        deep = [(layers, self.heads[0]) for layers in self.layers]
        return tuple(dict.fromkeys([*wide, *deep]))


@dataclass(frozen=True)
class Curves:
    """Loss and accuracy of every seed along training, each `[seeds, saves]`, over all images of the set."""

    loss: Float[np.ndarray, "seeds saves"]
    accuracy: Float[np.ndarray, "seeds saves"]


@dataclass(frozen=True)
class Run:
    """Vision Transformers of one size, one for each seed."""

    layers: int
    heads: int
    train: Curves
    held_out: Curves


@dataclass(frozen=True)
class ImagesResult:
    """All runs of one call of the experiment."""

    config: ImagesConfig
    images: tuple[int, int]
    runs: tuple[Run, ...]

    @property
    def epochs(self) -> Float[np.ndarray, " saves"]:
        """The epochs at which everything is measured."""
        return np.linspace(0, self.config.epochs, self.config.saves + 1)

    def find(self, layers: int, heads: int) -> Run:
        """The run of a size."""
        return next(run for run in self.runs if (run.layers, run.heads) == (layers, heads))

    @property
    def wide(self) -> list[Run]:
        """The runs that vary the number of heads."""
        return [self.find(self.config.depth, heads) for heads in self.config.heads]

    @property
    def deep(self) -> list[Run]:
        """The runs that vary the number of layers."""
        return [self.find(layers, self.config.heads[0]) for layers in self.config.layers]

    def table(self) -> str:
        """The table that the command prints: a line for each size."""
        head = (
            f"{'layers':>6} {'heads':>5} | {'training loss':>21} {'accuracy %':>19} {'to 95 %':>8} | "
            f"{'held-out loss':>17} {'accuracy %':>19}"
        )
        rule = "-" * len(head)
        first, second = self.images
        notes = [
            f"{first} images to train on, {second} held out; means over {self.config.seeds} seeds (least to greatest)",
            "after the last epoch; to 95 %: epochs until the training accuracy of the slowest seed reached 95 %",
        ]
        return "\n".join([head, rule, *(self._line(run) for run in self.runs), rule, *notes])

    def _line(self, run: Run) -> str:
        there = np.all(run.train.accuracy >= 0.95, axis=0)
        first = f"{self.epochs[np.argmax(there)]:g}" if there.any() else "-"
        return (
            f"{run.layers:6d} {run.heads:5d} | {_spread(run.train.loss, '.4f'):>21} "
            f"{_spread(100 * run.train.accuracy, '.2f'):>19} {first:>8} | {_spread(run.held_out.loss, '.3f'):>17} "
            f"{_spread(100 * run.held_out.accuracy, '.2f'):>19}"
        )

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`: of each size, `[seeds, saves]`."""
        kept: dict[str, Any] = {"epochs": self.epochs}
        for run in self.runs:
            for part in ("train", "held_out"):
                curves: Curves = getattr(run, part)
                name = f"l{run.layers}_m{run.heads}_{part}"
                kept |= {f"{name}_loss": curves.loss, f"{name}_accuracy": curves.accuracy}
        return kept

    def figure(self) -> Figure:
        """Loss and accuracy against epochs above for heads, below for layers; and where they end."""
        figure = Figure(figsize=(13, 7.4), layout="constrained")
        grid = figure.subplots(2, 3)
        rows = (
            ("heads M", f"{self.config.depth} layers", {f"{r.heads} heads": r for r in self.wide}, "heads"),
            (
                "layers L",
                f"{self.config.heads[0]} heads",
                {f"{r.layers} layer{'s' * (r.layers > 1)}": r for r in self.deep},
                "layers",
            ),
        )
        for (loss, accuracy, ends), (label, fixed, runs, field) in zip(grid, rows, strict=True):
            for axes, of, name, log in (
                (loss, "loss", "cross-entropy", True),
                (accuracy, "accuracy", "accuracy", False),
            ):
                groups = {n: (getattr(r.train, of), getattr(r.held_out, of)) for n, r in runs.items()}
                plot.learning_curves(axes, self.epochs, groups, name, f"{name.capitalize()}, {fixed}", log=log)
            sizes = np.array([getattr(r, field) for r in runs.values()])
            losses = {
                name: (sizes, np.stack([getattr(r, part).loss[:, -1] for r in runs.values()]))
                for name, part in (("training images", "train"), ("held-out images", "held_out"))
            }
            plot.ranges(ends, losses, label, "cross-entropy", f"Loss at the end, {fixed} (range of seeds)")
        return figure


def _spread(curves: np.ndarray, form: str) -> str:
    last = curves[:, -1]
    return f"{last.mean():{form}} ({last.min():{form}}-{last.max():{form}})"


def run(config: ImagesConfig, *, show_progress: bool | None = None) -> ImagesResult:
    """Train every size from every seed.

    **Arguments:**

    - `config`: [`wgf.experiments.ImagesConfig`][].
    - `show_progress`: whether to draw a progress bar; None for one where standard error is a terminal.

    **Returns:** [`wgf.experiments.ImagesResult`][].

    **Raises:** `ValueError` naming the option that cannot be used, before anything is compiled.
    """
    _check(config)
    data_key, run_key = jax.random.split(jax.random.key(config.seed))
    split = _load(data_key, config)
    runs = []
    with Progress(len(config.sizes), show_progress) as progress:
        for layers, heads in config.sizes:
            with progress.stage(f"{layers} layers of {heads} heads"):
                runs.append(_run(config, split, layers, heads, run_key))
    return ImagesResult(config, (split.train.batch, split.held_out.batch), tuple(runs))


def _check(config: ImagesConfig) -> None:
    check_seed(config.seed)
    for name in ("heads", "layers"):
        if not getattr(config, name):
            raise ValueError(f"`{name}` must hold at least one number; got none.")
        for count in getattr(config, name):
            at_least(name, count, 1)
    for name in ("depth", "key_dim", "epochs", "batch", "saves", "seeds"):
        at_least(name, getattr(config, name), 1)
    if config.epochs % config.saves:
        raise ValueError(f"`saves` must divide the epochs, {config.epochs}; got {config.saves}.")
    if config.data not in _DATA:
        raise ValueError(f"`data` must be one of {list(_DATA)}; got {config.data!r}.")
    if not config.rate > 0:
        raise ValueError(f"`rate` must be positive; got {config.rate}.")


def _load(key: PRNGKeyArray, config: ImagesConfig) -> Split:
    cut: Any = {"patch": config.patch, "features": config.features, "positions": config.positions}
    if config.data == "cifar10":
        if config.root is None:
            raise ValueError("`root` must name the folder of CIFAR-10's binary files with `data` 'cifar10'; got None.")
        return cifar10(key, expanded("root", config.root), images=config.images, **cut)
    if config.root is not None or config.images is not None:
        raise ValueError(
            f"`root` and `images` go with `data` 'cifar10'; got {config.root} and {config.images} with 'digits'."
        )
    return digits(key, **cut)


def _run(config: ImagesConfig, split: Split, layers: int, heads: int, key: PRNGKeyArray) -> Run:
    encoder = vision_encoder(split.train.token_dim, config.key_dim)
    law = Gaussian(encoder, config.scale)
    init_key, batch_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, layers), heads))
    draw = lambda k: Transformer(encoder, law.layered(layers, heads, k))  # noqa: E731
    models = eqx.filter_vmap(draw)(jax.random.split(init_key, config.seeds))
    every = max(1, split.train.batch * config.epochs // (config.saves * config.batch))
    steps = every * config.saves
    optimiser = optax.adam(optax.cosine_decay_schedule(config.rate, steps))
    keys = jax.random.split(batch_key, config.seeds)
    curves = _train(split, config.weight_decay, models, keys, optimiser, steps, every, config.batch)
    return Run(layers, heads, *(Curves(*map(np.asarray, part)) for part in curves))


def vision_encoder(token_dim: int, key_dim: int) -> Average:
    """Attention and perceptron behind layer normalisation, as in a Vision Transformer's pre-norm block."""
    attention, perceptron = SoftmaxAttention(token_dim, key_dim=key_dim), Perceptron(token_dim, jax.nn.gelu)
    return Average(LayerNorm(attention, epsilon=1e-2), LayerNorm(perceptron, epsilon=1e-2))


def vision_objective(prompts: Prompts, weight_decay: float | Array = 0.0) -> Objective:
    """Cross-entropy of the logits in the class token's class rows."""
    readout = QueryRows(prompts.label_row, _CLASSES)
    return Objective(prompts, weight_decay, loss=CrossEntropy(), readout=readout)


class _Sampled(Module):
    """An objective that is all of the training set where a minibatch is drawn, and one minibatch where it is surveyed.

    `train` surveys its objective with a gradient, which over 50,000 images would cost as much as an epoch.
    """

    objective: Objective
    probe: Objective

    def __call__(self, model: Transformer) -> Float[Array, ""]:
        return self.probe(model)

    def minibatch(self, key: PRNGKeyArray, size: int) -> Objective:
        return self.objective.minibatch(key, size)


@eqx.filter_jit
def _train(
    split: Split,
    weight_decay: float,
    models: Transformer,
    keys: Key[Array, " seeds"],
    optimiser: optax.GradientTransformation,
    steps: int,
    every: int,
    batch: int,
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Loss and accuracy `[seeds, saves]` over the training and the held-out set, one seed after the other."""
    whole = vision_objective(split.train, weight_decay)
    objective = _Sampled(whole, whole.minibatch(jax.random.key(0), batch))
    arrays, rest = eqx.partition(models, eqx.is_array)

    def one(seed):
        arrays, key = seed
        solution = train(
            objective,
            eqx.combine(arrays, rest),
            optimiser,
            steps=steps,
            save_every=every,
            batch=batch,
            key=key,
            throw=False,
        )
        return _evaluate(split.train, solution.models), _evaluate(split.held_out, solution.models)

    return jax.lax.map(one, (arrays, keys))


def _evaluate(prompts: Prompts, models: Transformer) -> tuple[Float[Array, " saves"], Float[Array, " saves"]]:
    """Mean loss and accuracy of models with a leading axis `[saves]`, one at a time."""
    objective = vision_objective(prompts)
    arrays, rest = eqx.partition(models, eqx.is_array)

    def one(arrays):
        logits = objective.outputs(eqx.combine(arrays, rest))
        return objective.score(logits), prompts.expect((jnp.argmax(logits, -1) == prompts.labels).astype(logits.dtype))

    return jax.lax.map(one, arrays)
