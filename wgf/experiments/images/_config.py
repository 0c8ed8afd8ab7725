"""The options of `wgf images`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..._checks import shown
from .._options import check_options
from .._settings import Device

_DATA = ("digits", "cifar10")


@dataclass(frozen=True)
class ImagesConfig:
    """Train Vision Transformers with several numbers of heads and of layers. Draw loss and accuracy against epochs."""

    data: Literal["digits", "cifar10"] = "digits"
    """The 1,797 handwritten digits that scikit-learn ships, or CIFAR-10 from the files of its binary version."""
    root: Path | None = None
    """The folder of CIFAR-10's data_batch_1.bin to data_batch_5.bin and test_batch.bin."""
    images: int | None = None
    """The number of CIFAR-10 images to train on; by default all of them."""
    patch: int = 4
    """The side of a patch in pixels; a patch is a token."""
    features: int | None = None
    """The number of rows of a fixed random embedding of patches; by default a token holds the pixels themselves."""
    positions: int = 4
    """The number of rows of positional encoding."""
    heads: tuple[int, ...] = (4, 10, 20, 40)
    """Heads (and neurons) per layer, when width varies. The first is the width when depth varies."""
    layers: tuple[int, ...] = (1, 2, 6, 12)
    """The numbers of layers, when depth varies."""
    depth: int = 6
    """The number of layers, when width varies."""
    key_dim: int = 4
    """The dimension of keys and queries."""
    scale: float = 0.5
    """The standard deviation of the initial parameters."""
    weight_decay: float = 1e-6
    """The weight decay lambda of the objective."""
    epochs: int = 20
    """The number of passes over the training images, which are drawn with replacement."""
    batch: int = 128
    """The number of images in a minibatch."""
    rate: float = 2e-2
    """Adam's initial learning rate, which decays to zero along a cosine."""
    saves: int = 10
    """The number of measurements of loss and accuracy after the start; must divide the epochs."""
    seeds: int = 3
    """Independent draws of initial parameters and minibatches for each size."""
    seed: int = 0
    """The seed of every random draw."""
    quick: bool = False
    """A small run: fewer sizes, seeds and epochs, unless these are given."""
    x64: bool = False
    """Compute in float64; by default in JAX's own precision, mostly float32."""
    device: Device | None = None
    """The kind of device to compute on; by default the one that JAX chooses."""
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


def check(config: ImagesConfig) -> None:
    """Raise `ValueError` that names the first option that cannot be used."""
    if not config.rate > 0:
        raise ValueError(f"`rate` must be positive; got {config.rate}.")
    check_options(config, least={"positions": 0}, zero=("weight_decay",), distinct=("heads", "layers"))
    for name in ("heads", "layers"):
        if not getattr(config, name):
            raise ValueError(f"`{name}` must hold at least one number; got none.")
    if config.epochs % config.saves:
        raise ValueError(f"`saves` must divide the epochs, {config.epochs}; got {config.saves}.")
    if config.data not in _DATA:
        raise ValueError(f"`data` must be one of {list(_DATA)}; got {shown(config.data)}.")
