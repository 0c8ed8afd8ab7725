"""The options of `wgf homogeneity`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._options import check_options, check_rtol
from .._settings import Device

_MOST_STEPS = 10**7


@dataclass(frozen=True)
class HomogeneityConfig:
    """Measure the theory's assumptions for 21 encoders. Train each from the same law, data and seeds, and compare."""

    data: str = "synthetic"
    """The source of prompts: 'synthetic' (in-context linear regression), 'diabetes' or the path of a CSV file."""
    target: str | None = None
    """The column to predict, if the data is a CSV file."""
    batch: int = 16
    """The number of prompts B."""
    examples: int = 4
    """The number of labelled examples N in each prompt, before the query."""
    dim: int = 2
    """The number of input features of each example."""
    encoders: tuple[str, ...] = ()
    """The encoders to run, as group and name ('neuron ReLU', 'head softmax', 'block causal'); by default all."""
    depth: int = 4
    """The number of layers L of the finite model."""
    width: int = 32
    """The number of particles M in each layer."""
    key_dim: int = 2
    """The dimension k of keys and queries."""
    scale: float = 0.7
    """The standard deviation of the initial law of the particles."""
    weight_decay: float = 1e-4
    """The weight decay lambda."""
    horizon: float = 200.0
    """The training time tau at which every flow ends."""
    rtol: float = 1e-5
    """The relative and absolute tolerance of the flow in training time, for the root mean square over all particles."""
    least_step: float = 0.005
    """The smallest step in tau. Steps of this size are accepted at any error."""
    windows: int = 800
    """The number of equal time intervals in which the moves of the particles are compared with the fall of Q."""
    saves: int = 12
    """The number of training times at which the risk is saved: 0, then a geometric sequence."""
    seeds: int = 3
    """Independent draws of prompts and particles. All encoders use the same prompts of a seed."""
    samples: int = 256
    """The number of particles over which the assumptions are measured."""
    seed: int = 0
    """The seed of every random draw."""
    quick: bool = False
    """A small run: a few encoders, small models and short times, unless these are given."""
    x64: bool = False
    """Compute in float64. This study does so in any case."""
    device: Device | None = None
    """The kind of device to compute on; by default the one that JAX chooses."""
    out: Path | None = None
    """The results folder; by default a new one under results/."""

    # No option: this study computes in float64 whatever the caller's precision is.
    computes_in = "float64"

    @classmethod
    def quick_default(cls) -> "HomogeneityConfig":
        """The defaults of `--quick`."""
        few = ("neuron ReLU", "neuron tanh", "neuron bounded tanh", "head softmax")
        return cls(encoders=few, batch=8, depth=2, horizon=40.0, windows=160, seeds=2, samples=64, quick=True)


def check(config: HomogeneityConfig) -> None:
    """Raise `ValueError` that names the first option that cannot be used."""
    check_options(config, least={"saves": 2, "samples": 16}, zero=("weight_decay",), distinct=("encoders",))
    check_rtol(config.rtol, np.float64)
    if config.horizon / config.least_step > _MOST_STEPS:
        raise ValueError(
            f"`least_step` must be at least {config.horizon / _MOST_STEPS:g}, for at most {_MOST_STEPS} steps; got "
            f"{config.least_step}."
        )
