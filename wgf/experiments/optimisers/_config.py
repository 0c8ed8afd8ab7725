"""The options of `wgf optimisers`."""

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ..._checks import shown
from .._options import check_options
from .._settings import Device


@dataclass(frozen=True)
class OptimisersConfig:
    """Train Transformers by gradient descent, SGD, Adam and AdamW at decreasing steps. Measure the distance to the
    gradient flow, and to each method's own limit.
    """

    prompts: int = 16
    """The number of in-context regression prompts of each problem."""
    examples: int = 4
    """The number of labelled examples in each prompt."""
    dim: int = 2
    """The dimension of an input."""
    depth: int = 4
    """The number of layers L of the Transformers."""
    width: int = 8
    """The number of heads and neurons M in each layer."""
    scale: float = 0.7
    """The standard deviation of the initial parameters."""
    weight_decay: float = 1e-3
    """The weight decay lambda: of the objective, but with AdamW the optimiser's own."""
    tau: float = 4.0
    """The training time at which gradient descent and SGD are compared with the flow."""
    steps: tuple[float, ...] = (0.4, 0.2, 0.1, 0.05, 0.025)
    """Learning rates h of gradient descent and SGD; each must divide tau. The second is used with all batch sizes."""
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Batch sizes of SGD, prompts drawn with replacement. The second is used with all learning rates."""
    replicates: int = 64
    """Runs of SGD from each start, which differ only in their batches."""
    adam_tau: float = 0.5
    """The training time (updates times learning rate) at which Adam and AdamW are compared with their limit."""
    adam_updates: tuple[int, ...] = (100, 200, 400, 800, 1600)
    """The numbers of Adam's updates in that time."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Adam's decay rates, of the mean gradient and of the mean squared gradient."""
    epsilon: float = 1e-2
    """Adam's epsilon where its limit is measured. Gradients in the mean-field scale are 1e-4 to 1e-1 here."""
    long_tau: float = 200.0
    """The training time of the long runs."""
    long_updates: int = 500
    """Updates of each long run. Gradient descent and SGD use the learning rate long_tau / long_updates."""
    rate: float = 1e-2
    """Adam's learning rate in the long runs, with Optax's own epsilon 1e-8."""
    seeds: int = 8
    """Independent problems and initial parameters."""
    seed: int = 0
    """The seed of every random draw."""
    quick: bool = False
    """A small run: fewer steps, batches, replicates and seeds, unless these are given."""
    x64: bool = False
    """Compute in float64; by default in JAX's own precision, mostly float32."""
    device: Device | None = None
    """The kind of device to compute on; by default the one that JAX chooses."""
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
        """The updates of one compiled part of gradient descent. Every run consists of whole parts."""
        return math.gcd(*(round(self.tau / step) for step in self.steps))


def check(config: OptimisersConfig) -> None:
    """Raise `ValueError` that names the first option that cannot be used."""
    check_options(
        config, least={"seeds": 2, "replicates": 2}, zero=("weight_decay", "betas"), distinct=("steps", "batches")
    )
    if not max(config.betas) < 1:
        raise ValueError(f"`betas` must be at least 0 and below 1; got {config.betas}.")
    for name in ("steps", "batches", "adam_updates"):
        if len(getattr(config, name)) < 3:
            raise ValueError(
                f"`{name}` must hold at least three numbers, to fit an exponent; got {shown(getattr(config, name))}."
            )
    if any(a >= b for a, b in pairwise(config.adam_updates)):
        raise ValueError(f"`adam_updates` must increase; got {shown(config.adam_updates)}.")
    for step in config.steps:
        if not step > 0 or abs(config.tau / step - round(config.tau / step)) > 1e-6:
            raise ValueError(f"`steps` must each divide `tau` = {config.tau:g}; got {step:g}.")
    if config.long_updates % config.chunk:
        raise ValueError(
            f"`long_updates` must be a multiple of {config.chunk}, the greatest common divisor of the numbers of "
            f"updates of all `steps`; got {config.long_updates}."
        )
