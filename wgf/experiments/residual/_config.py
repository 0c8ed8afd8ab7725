"""The options of `wgf residual`."""

from dataclasses import dataclass
from pathlib import Path

from ..._checks import shown
from ...companions import SmoothLeakyReLU
from .._options import check_options, check_rtol
from .._settings import Device


@dataclass(frozen=True)
class ResidualConfig:
    """Train one-layer and deep Transformers with and without residual connections; measure conditioning and rate."""

    dim: int = 32
    """The dimension d of a token."""
    hidden: int = 128
    """The width m of the feed-forward network. The theory needs m >= d."""
    lengths: tuple[int, ...] = (4, 8, 16)
    """Numbers of tokens N in the prompt; the second (or only) one is the reference. The theory needs N <= d."""
    temperatures: tuple[float, ...] = (2.0, 8.0, 32.0)
    """Temperatures of the softmax; the second (or only) one is the reference, used for descent and for the depths."""
    depths: tuple[int, ...] = (2, 4, 8)
    """Numbers of layers of the multi-layer models, besides the single layer. They use the first of the lengths."""
    seeds: int = 10
    """Independent draws of data and initial weights in each condition."""
    slope: float = 0.5
    """The least slope gamma of the activation, a smooth leaky ReLU. Rates are also measured for gamma = 1."""
    horizon: float = 2.5
    """The training time: tau ends at horizon / sigma_min(X)^2, of the tokens' matrix (the mean over the seeds)."""
    deep_horizon: float = 1.75
    """The same for several layers, each of which adds to the rate."""
    saves: int = 31
    """The number of equally spaced training times at which everything is measured."""
    step: float = 0.05
    """Gradient descent's learning rate in units of 1 / sigma_max(B)^2."""
    rtol: float = 1e-4
    """The relative tolerance of the flow."""
    seed: int = 0
    """The seed of every random draw."""
    quick: bool = False
    """A small run: fewer conditions, unless these are given."""
    x64: bool = False
    """Compute in float64; by default in JAX's own precision, mostly float32."""
    device: Device | None = None
    """The kind of device to compute on; by default the one that JAX chooses."""
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


def check(config: ResidualConfig) -> None:
    """Raise `ValueError` that names the first option that cannot be used."""
    for name in ("lengths", "temperatures"):
        if not getattr(config, name):
            raise ValueError(f"`{name}` must hold at least one number; got none.")
    SmoothLeakyReLU(config.slope)
    check_options(config, least={"saves": 3}, distinct=("lengths", "temperatures", "depths"))
    check_rtol(config.rtol)
    if max(config.lengths) > config.dim:
        raise ValueError(
            f"`lengths` must be at most `dim`, {config.dim}, the limit of the theory; got {shown(config.lengths)}."
        )
