"""The options of `wgf rest`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..._checks import shown
from .._grouping import Size
from .._options import check_options, check_rtol
from .._settings import Device

SETS = ("synthetic", "diabetes")


@dataclass(frozen=True)
class RestConfig:
    """Follow finite Transformers and the PDE to rest, and go on until no particle is missing (conditional gradient)."""

    data: tuple[str, ...] = SETS
    """Data sets: 'synthetic' (in-context linear regression), 'diabetes' (rows of a real table)."""
    batch: int = 16
    """The number of prompts B."""
    examples: int = 4
    """The number of labelled examples N in each prompt, before the query."""
    dim: int = 2
    """The number of input features of each example."""
    sizes: tuple[Size, ...] = ((2, 16), (4, 32))
    """The finite models, as pairs of depth L and width M: 2 16 4 32 means (2, 16) and (4, 32)."""
    width: int = 32
    """The number of particles at each of the eight stage times of the PDE's solve in depth."""
    key_dim: int = 2
    """The dimension k of keys and queries."""
    scale: float = 0.7
    """The standard deviation of the initial law of the particles."""
    weight_decay: float = 1e-3
    """The weight decay lambda."""
    horizon: float = 10.0
    """The length of the flow to rest: tau ends at horizon / lambda."""
    rounds: int = 48
    """The most rounds of the conditional gradient."""
    round_length: float = 3.0
    """The length of the flow of one round, in units of 1 / lambda."""
    tolerance: float = 1e-2
    """The conditional gradient stops when the certificate is above minus this share of Q."""
    mass: float = 0.1
    """The greatest share of a depth's mass that one round moves."""
    spare: int = 4
    """The number of slots for new particles at each depth."""
    rtol: float = 1e-4
    """The relative tolerance of all flows, for the worst particle."""
    saves: int = 12
    """The number of saved training times: 0, a geometric sequence up to 1 / lambda before the end, and the end."""
    seed: int = 0
    """The seed of every random draw."""
    quick: bool = False
    """A small run: one data set, one small model and few rounds, unless these are given."""
    x64: bool = False
    """Compute in float64. This study does so in any case."""
    device: Device | None = None
    """The kind of device to compute on; by default the one that JAX chooses."""
    out: Path | None = None
    """The results folder; by default a new one under results/."""

    # No option: this study computes in float64 whatever the caller's precision is.
    computes_in = "float64"

    @classmethod
    def quick_default(cls) -> "RestConfig":
        """The defaults of `--quick`."""
        return cls(
            data=("synthetic",),
            batch=6,
            sizes=((2, 8),),
            width=8,
            horizon=4.0,
            rounds=6,
            weight_decay=1e-2,
            saves=6,
            quick=True,
        )


def check(config: RestConfig) -> None:
    """Raise `ValueError` that names the first option that cannot be used."""
    check_rtol(config.rtol, np.float64)
    check_options(config, least={"saves": 4}, distinct=("data", "sizes"))
    if not config.horizon > 1:
        raise ValueError(f"`horizon` must be above 1, in units of 1 / lambda; got {config.horizon}.")
    for name in ("tolerance", "mass"):
        if not getattr(config, name) < 1:
            raise ValueError(f"`{name}` must be below 1, a share of the whole; got {getattr(config, name)}.")
    if not config.sizes:
        raise ValueError(f"`sizes` must be at least one pair of depth and width; got {config.sizes}.")
    if config.width % 2:
        raise ValueError(f"`width` must be even, for pairs of particles; got {config.width}.")
    if not config.data or not set(config.data) <= set(SETS):
        raise ValueError(f"`data` must be at least one of {SETS}; got {shown(config.data)}.")
