"""The options of `wgf decay`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..._checks import shown
from .._options import check_options, check_rtol
from .._settings import Device

SETS = ("synthetic", "teacher", "diabetes", "shuffled")
DECAYS = (1e-1, 3.16e-2, 1e-2, 3.16e-3, 1e-3, 3.16e-4, 1e-4, 1e-5)


@dataclass(frozen=True)
class DecayConfig:
    """Follow the flow to rest at weight decays from 1e-5 to 1e-1. Measure the final risk; test whether Q is minimal."""

    data: tuple[str, ...] = SETS
    """Data sets: 'synthetic' (in-context linear regression), 'teacher' (labels by a Transformer of the same kind, whose
    Q is an upper bound of the minimum), 'diabetes' (rows of a real table), 'shuffled' ('synthetic' with permuted
    labels)."""
    weight_decays: tuple[float, ...] = DECAYS
    """The weight decays lambda."""
    batch: int = 16
    """The number of prompts B."""
    examples: int = 4
    """The number of labelled examples N in each prompt, before the query."""
    dim: int = 2
    """The number of input features of each example."""
    depth: int = 4
    """The number of layers L."""
    width: int = 32
    """The number of particles M in each layer."""
    scale: float = 1.0
    """The standard deviation of the initial law of the particles."""
    teacher_width: int = 4
    """The number of particles in each layer of the teacher."""
    horizon: float = 20.0
    """The length of the flow: tau ends at horizon / lambda."""
    rest: float = 3e-3
    """A flow is at rest if Q fell by at most this share of itself in the last time interval of length 1 / lambda."""
    fit: float = 1e-2
    """The labels count as fitted if the risk is at most this share of the null model's."""
    small: float = 3.2e-3
    """The largest weight decay that the power laws in lambda are fitted to."""
    rtol: float = 1e-4
    """The relative tolerance of the flow in training time, for the worst particle."""
    saves: int = 12
    """The number of saved training times: 0, a geometric sequence up to 1 / lambda before the end, and the end."""
    seed: int = 0
    """The seed of every random draw."""
    quick: bool = False
    """A small run: one data set, four weight decays and a small model, unless these are given."""
    x64: bool = False
    """Compute in float64. This study does so in any case."""
    device: Device | None = None
    """The kind of device to compute on; by default the one that JAX chooses."""
    out: Path | None = None
    """The results folder; by default a new one under results/."""

    # No option: this study computes in float64 whatever the caller's precision is.
    computes_in = "float64"

    @classmethod
    def quick_default(cls) -> "DecayConfig":
        """The defaults of `--quick`."""
        return cls(
            data=("teacher",),
            weight_decays=(1e-1, 1e-2, 3e-3, 1e-3),
            batch=8,
            depth=2,
            width=32,
            small=1e-2,
            quick=True,
        )


def check(config: DecayConfig) -> None:
    """Raise `ValueError` that names the first option that cannot be used."""
    if not config.horizon > 1:
        raise ValueError(f"`horizon` must be above 1, in units of 1 / lambda; got {config.horizon}.")
    if not config.weight_decays or not min(config.weight_decays) > 0:
        raise ValueError(f"`weight_decays` must be at least one positive number; got {shown(config.weight_decays)}.")
    check_rtol(config.rtol, np.float64)
    check_options(config, least={"saves": 4}, distinct=("data", "weight_decays"))
    if not config.data or not set(config.data) <= set(SETS):
        raise ValueError(f"`data` must be at least one of {SETS}; got {config.data}.")
