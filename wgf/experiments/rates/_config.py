"""The options of `wgf rates`: sizes, problem and reference."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..._checks import shown
from .._grouping import Size
from .._options import check_options
from .._settings import Device

PATHS = ("M / log L fixed", "M / log L growing", "M / log L shrinking")
OPTIMISERS = ("adam", "adamw")


@dataclass(frozen=True)
class RatesConfig:
    """Measure the gaps of finite Transformers to their limit at several depths and widths, and fit the exponents."""

    depths: tuple[int, ...] = (2, 8, 32, 128)
    """The depths L of the grid."""
    widths: tuple[int, ...] = (8, 32, 128, 512)
    """The widths M of the grid."""
    seeds: int = 6
    """The number of independent starts of each size."""
    optimisers: tuple[str, ...] = OPTIMISERS
    """Optimisers whose gaps are also measured, on all sizes of the grid except the widest: 'adam', 'adamw'."""
    batch: int = 16
    """The number of prompts B."""
    examples: int = 8
    """The number of labelled examples N in each prompt, before the query."""
    dim: int = 2
    """The number of input features of each example."""
    key_dim: int = 2
    """The dimension k of keys and queries."""
    scale: float = 0.7
    """The standard deviation of the initial law of the particles."""
    weight_decay: float = 1e-3
    """The weight decay lambda."""
    tau: float = 4.0
    """The training time at which gaps are measured."""
    steps: int = 4
    """The number of steps of Kutta's 3/8 rule in training time, for every flow."""
    learning_rate: float = 0.01
    """The learning rate of the optimisers."""
    updates: int = 40
    """The number of updates of the optimisers."""
    epsilon: float = 1e-3
    """The optimisers' epsilon, in units of the mean-field gradient."""
    decoupled: float = 0.1
    """The decoupled weight decay of AdamW, in addition to lambda."""
    reference: int = 1024
    """The number of the limit's particles at each stage time of its depth solve, in each replicate."""
    depth_steps: int = 2
    """The number of steps of Kutta's 3/8 rule in the limit's depth solve."""
    replicates: int = 8
    """The number of independent replicates of the limit, which are pooled. Their spread measures the limit's error."""
    resamples: int = 200
    """The number of resamples of the bootstrap over seeds."""
    seed: int = 0
    """The seed of every random draw."""
    quick: bool = False
    """A small run: small models, few seeds, one optimiser, unless these are given."""
    x64: bool = False
    """Compute in float64; by default in JAX's own precision, mostly float32."""
    device: Device | None = None
    """The kind of device to compute on; by default the one that JAX chooses."""
    out: Path | None = None
    """The results folder; by default a new one under results/."""

    @classmethod
    def quick_default(cls) -> "RatesConfig":
        """The defaults of `--quick`."""
        return cls(
            depths=(2, 4, 16),
            widths=(4, 16, 64),
            seeds=4,
            optimisers=("adam",),
            batch=4,
            examples=3,
            dim=1,
            key_dim=1,
            tau=2.0,
            steps=2,
            updates=20,
            reference=128,
            depth_steps=1,
            replicates=4,
            resamples=20,
            quick=True,
        )

    def grid(self) -> list[Size]:
        """The sizes of the fit, (L, M)."""
        return [(depth, width) for depth in self.depths for width in self.widths]

    def trained(self) -> list[Size]:
        """The sizes that the optimisers train."""
        return [size for size in self.grid() if size[1] < max(self.widths)]

    def paths(self) -> dict[str, list[Size]]:
        """Sizes along which M / log L is fixed, grows (the grid's diagonal), or shrinks (its other diagonal)."""
        logs = np.log(self.depths) / np.log(self.depths[0])
        return {
            PATHS[0]: [(d, round(self.widths[0] * log)) for d, log in zip(self.depths, logs, strict=True)],
            PATHS[1]: list(zip(self.depths, self.widths, strict=False)),
            PATHS[2]: list(zip(self.depths, self.widths[::-1], strict=False)),
        }

    def sizes(self) -> list[Size]:
        """All sizes, without repetition."""
        return list(dict.fromkeys([*self.grid(), *(size for path in self.paths().values() for size in path)]))


def check(config: RatesConfig) -> None:
    """Raise `ValueError` that names the first option that cannot be used."""
    least = {"seeds": 3, "replicates": 2, "resamples": 2}
    check_options(config, least=least, zero=("weight_decay", "decoupled"), distinct=("optimisers",))
    for name in ("depths", "widths"):
        values = getattr(config, name)
        if len(values) < 2 or min(values) < 2 or sorted(set(values)) != list(values):
            raise ValueError(f"`{name}` must be at least two increasing numbers from 2 on; got {shown(values)}.")
    if min(len(config.grid()), len(config.trained()) if config.optimisers else 6) < 6:
        raise ValueError(
            "`depths` and `widths` must give at least 6 sizes (with `optimisers`: without the widest); got "
            f"{len(config.depths)} depths and {len(config.widths)} widths."
        )
    ratios = [width / np.log(depth) for depth, width in config.paths()[PATHS[1]]]
    if np.min(np.diff(ratios)) <= 0:
        raise ValueError(f"`widths` must grow faster than the logarithms of `depths`; got {shown(config.widths)}.")
    if not set(config.optimisers) <= set(OPTIMISERS):
        raise ValueError(f"`optimisers` must be among {OPTIMISERS}; got {shown(config.optimisers)}.")
