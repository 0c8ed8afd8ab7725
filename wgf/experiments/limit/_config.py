"""The options of `wgf limit`."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from ..._checks import at_least, shown
from ...measures import Independent, SignPairs, Sobol
from .._grouping import Size
from .._options import check_options, check_rtol
from .._settings import Device

SAMPLINGS = {"pairs": SignPairs(Sobol()), "sobol": Sobol(), "independent": Independent()}


@dataclass(frozen=True)
class LimitConfig:
    """Train finite Transformers of growing width and depth, solve their mean-field PDE once, measure the distance."""

    data: str = "synthetic"
    """The source of prompts: 'synthetic' (in-context linear regression), 'diabetes' (scikit-learn's bundled table), or
    the path of a CSV file of numbers with a header line."""
    target: str | None = None
    """The column to predict, if the data is a CSV file."""
    batch: int = 32
    """The number of prompts B."""
    examples: int = 8
    """The number of labelled examples N in each prompt, before the query."""
    dim: int = 2
    """The number of input features of each example."""
    sizes: tuple[Size, ...] = ((4, 16), (8, 32), (16, 64), (32, 128))
    """The finite models, as pairs of depth L and width M: 4 16 8 32 means (4, 16) and (8, 32)."""
    seeds: int = 4
    """The number of finite models of each size, at least 2. Their scatter gives the error of a size's mean."""
    tracers: int = 512
    """The number of fresh particles at each of 4 depths that move in the field of every finite model and of the PDE.
    The distances between the laws of the particles are measured with them."""
    width: int = 2048
    """The number of particles at each stage time of the PDE's solve in depth, all replicates together."""
    replicates: int = 8
    """The number of independently randomised parts of the PDE's particles. Each part is also solved alone, to measure
    the PDE's own sampling error."""
    sampling: Literal["pairs", "sobol", "independent"] = "pairs"
    """The sampling of the PDE's particles: sign-symmetric pairs of Sobol points, Sobol points, or independent draws.
    The particles of the finite models are independent, as the theorems assume."""
    steps: int = 1
    """Steps in depth of the PDE's model, of eight stages each. Every stage time has its own sample."""
    taus: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 20.0)
    """The training times at which everything is saved and compared. The first is 0, where training starts."""
    key_dim: int = 2
    """The dimension k of keys and queries."""
    scale: float = 0.7
    """The standard deviation of the initial law of the particles."""
    weight_decay: float = 1e-3
    """The weight decay lambda."""
    rtol: float = 1e-3
    """The relative tolerance of the flow in training time, for the worst particle."""
    seed: int = 0
    """The seed of every random draw."""
    mesh: str | None = None
    """Spread prompts and particles over all devices, e.g. prompts=4,particles=2; by default one device is used."""
    distributed: str | None = None
    """Join several processes, one per machine of a cluster: 'auto' (SLURM, TPU pods, Open MPI), or
    ADDRESS:PORT,PROCESSES,ID with the first process's address. Needs a mesh of the devices of all processes."""
    quick: bool = False
    """A small run: fewer prompts, particles, layers and times, unless these are given."""
    x64: bool = False
    """Compute in float64; by default in JAX's own precision, mostly float32."""
    device: Device | None = None
    """The kind of device to compute on; by default the one that JAX chooses."""
    out: Path | None = None
    """The results folder; by default a new one under results/."""

    @classmethod
    def quick_default(cls) -> "LimitConfig":
        """The defaults of `--quick`."""
        return cls(
            batch=8,
            examples=4,
            sizes=((2, 8), (4, 16)),
            seeds=2,
            tracers=64,
            width=64,
            replicates=4,
            taus=(0.0, 1.0, 2.0, 4.0),
            quick=True,
        )


def check(config: LimitConfig) -> None:
    """Raise `ValueError` that names the first option that cannot be used."""
    if config.distributed is not None and config.mesh is None:
        raise ValueError("`mesh` must spread the work over the devices of all processes with `distributed`; got None.")
    check_options(config, least={"seeds": 2, "replicates": 2}, zero=("weight_decay", "taus"))
    check_rtol(config.rtol)
    if len(config.taus) < 2:
        raise ValueError(f"`taus` must be a vector of at least two training times; got {shown(config.taus)}.")
    if any(a >= b for a, b in pairwise(config.taus)):
        raise ValueError(f"`taus` must increase; got {shown(list(config.taus))}.")
    if config.taus[0] != 0:
        raise ValueError(
            f"`taus` must begin at 0, where training starts; got {config.taus[0]:g}. Write {(0.0, *config.taus)}."
        )
    distinct_sizes(config)
    replicate_width(config)
    if config.sampling not in list(SAMPLINGS):
        raise ValueError(f"`sampling` must be one of {list(SAMPLINGS)}; got {shown(config.sampling)}.")


def distinct_sizes(config: LimitConfig) -> tuple[Size, ...]:
    """The sizes of the finite models. Raise `ValueError` if there is none, or if one is given twice."""
    sizes = config.sizes
    if not sizes or len(set(sizes)) != len(sizes):
        raise ValueError(f"`sizes` must be distinct pairs of depth and width, at least one; got {shown(sizes)}.")
    return sizes


def replicate_width(config: LimitConfig) -> int:
    """The particles of each replicate at each stage time. Raise `ValueError` if the width is not divisible."""
    at_least("width", config.width, 1)
    at_least("replicates", config.replicates, 2)
    unit = config.replicates * (2 if config.sampling == "pairs" else 1)
    if config.width % unit:
        parts = (
            f"{config.replicates} equal replicates"
            if unit == config.replicates
            else (f"pairs in each of the {config.replicates} replicates")
        )
        raise ValueError(f"`width` must be a multiple of {unit}, for {parts}; got {config.width}.")
    return config.width // config.replicates
