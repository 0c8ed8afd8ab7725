"""The result of `wgf images`: its table, arrays and figure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ... import plot
from ..._display.text import counted
from .._failures import mark, of_seeds
from .._result import AbstractResult
from .._table import Table
from ._config import ImagesConfig

_HEADS = ("layers", "heads", "|", "training loss", "accuracy %", "to 95 %", "|", "held-out loss", "accuracy %", "")


def name_of(layers: int, heads: int) -> str:
    """The name of a size, as in `1 layer of 4 heads`."""
    return f"{counted(layers, 'layer')} of {counted(heads, 'head')}"


@dataclass(frozen=True)
class Curves:
    """Loss and accuracy along training over all images of one set, `[seeds, saves]` each."""

    loss: Float[np.ndarray, "seeds saves"]
    accuracy: Float[np.ndarray, "seeds saves"]


@dataclass(frozen=True)
class Run:
    """Vision Transformers of one size, one per seed."""

    layers: int
    heads: int
    train: Curves
    held_out: Curves


@dataclass(frozen=True, repr=False)
class ImagesResult(AbstractResult):
    """All sizes of one run of the experiment. `images` are the numbers of training and held-out images."""

    config: ImagesConfig
    images: tuple[int, int]
    runs: tuple[Run, ...]

    @property
    def epochs(self) -> Float[np.ndarray, " saves"]:
        """The epochs at which loss and accuracy are measured."""
        return np.linspace(0, self.config.epochs, self.config.saves + 1)

    def find(self, layers: int, heads: int) -> Run:
        """The run of one size."""
        return next(run for run in self.runs if (run.layers, run.heads) == (layers, heads))

    @property
    def wide(self) -> list[Run]:
        """The runs that vary the number of heads."""
        return [self.find(self.config.depth, heads) for heads in self.config.heads]

    @property
    def deep(self) -> list[Run]:
        """The runs that vary the number of layers."""
        return [self.find(layers, self.config.heads[0]) for layers in self.config.layers]

    def tables(self) -> tuple[Table, ...]:
        """The table: a row per size."""
        first, second = self.images
        notes = [
            f"{first} images to train on, {second} held out; means over {self.config.seeds} seeds (least to greatest)",
            "after the last epoch; to 95 %: epochs until the training accuracy of the slowest seed reached 95 %",
        ]
        return (Table(_HEADS, [self._row(run) for run in self.runs], left=(9,), notes=notes, gap=1, keys=2),)

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each size with seeds whose training failed."""
        sizes = {name_of(run.layers, run.heads): run for run in self.runs}
        return tuple(line for name, run in sizes.items() for line in of_seeds(name, run.train.loss))

    def _row(self, run: Run) -> list[str]:
        reached = np.all(run.train.accuracy >= 0.95, axis=0)
        return [
            f"{run.layers}",
            f"{run.heads}",
            "|",
            _spread(run.train.loss, ".4f"),
            _spread(100 * run.train.accuracy, ".2f"),
            f"{self.epochs[np.argmax(reached)]:g}" if reached.any() else "-",
            "|",
            _spread(run.held_out.loss, ".3f"),
            _spread(100 * run.held_out.accuracy, ".2f"),
            mark(run.train.loss),
        ]

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`: `[seeds, saves]` for each size."""
        kept: dict[str, Any] = {"epochs": self.epochs}
        for run in self.runs:
            for part in ("train", "held_out"):
                curves: Curves = getattr(run, part)
                name = f"l{run.layers}_m{run.heads}_{part}"
                kept |= {f"{name}_loss": curves.loss, f"{name}_accuracy": curves.accuracy}
        return kept

    def figure(self) -> Figure:
        """Loss and accuracy against epochs, and the final loss: by heads above, by layers below."""
        figure = Figure(figsize=(13, 7.4), layout="constrained")
        above, below = figure.subplots(2, 3)
        wide = {f"{r.heads} heads": r for r in self.wide}
        deep = {f"{r.layers} layer{'s' * (r.layers > 1)}": r for r in self.deep}
        self._draw_row(above, wide, "heads", "heads M", f"{self.config.depth} layers")
        self._draw_row(below, deep, "layers", "layers L", f"{self.config.heads[0]} heads")
        return figure

    def _draw_row(self, row, runs: Mapping[str, Run], field: str, label: str, fixed: str) -> None:
        """Draw the runs that vary `field` on a row of axes; `fixed` names what they share."""
        loss, accuracy, ends = row
        for axes, of, name, log in ((loss, "loss", "cross-entropy", True), (accuracy, "accuracy", "accuracy", False)):
            groups = {n: (getattr(r.train, of), getattr(r.held_out, of)) for n, r in runs.items()}
            plot.learning_curves(axes, self.epochs, groups, name, f"{name.capitalize()}, {fixed}", log=log)
        sizes = np.array([getattr(r, field) for r in runs.values()])
        losses = {
            name: (sizes, np.stack([getattr(r, part).loss[:, -1] for r in runs.values()]))
            for name, part in (("training images", "train"), ("held-out images", "held_out"))
        }
        plot.ranges(ends, losses, label, "cross-entropy", f"Loss at the end, {fixed} (range of seeds)")


def _spread(curves: np.ndarray, form: str) -> str:
    last = curves[:, -1]
    return f"{last.mean():{form}} ({last.min():{form}}-{last.max():{form}})"
