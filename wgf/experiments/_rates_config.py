"""What the experiment of rates is asked: its sizes, its problem, its reference."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._checks import at_least
from ._rates_runs import Size
from ._seed import check_seed

PATHS = ("M / log L fixed", "M / log L growing", "M / log L shrinking")
OPTIMISERS = ("adam", "adamw")


@dataclass(frozen=True)
class RatesConfig:
    """Measure how the gaps of finite Transformers to their limit fall with depth and width, and fit the exponents."""

    depths: tuple[int, ...] = (2, 8, 32, 128)
    """Depths L of the grid."""
    widths: tuple[int, ...] = (8, 32, 128, 512)
    """Widths M of the grid."""
    seeds: int = 6
    """Independent starts of each size."""
    optimisers: tuple[str, ...] = OPTIMISERS
    """Optimisers whose gaps are measured as well, on all sizes of the grid but the widest: 'adam', 'adamw'."""
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
    """Steps in training time, of Kutta's 3/8 rule, of every flow."""
    learning_rate: float = 0.01
    """The learning rate of the optimisers."""
    updates: int = 40
    """The updates of the optimisers."""
    epsilon: float = 1e-3
    """The optimisers' epsilon, in units of the mean-field gradient."""
    decoupled: float = 0.1
    """The decoupled weight decay of AdamW, beside lambda."""
    reference: int = 1024
    """The limit's particles at each stage time of its depth solve, in each replicate."""
    depth_steps: int = 2
    """Steps of the limit's depth solve, of Kutta's 3/8 rule."""
    replicates: int = 8
    """Independent replicates of the limit, pooled; they tell its own error."""
    cloud: int = 512
    """The limit's particles that Sinkhorn divergences see at a depth."""
    resamples: int = 200
    """Resamples of the bootstrap over seeds."""
    seed: int = 0
    """The seed of every random draw."""
    quick: bool = False
    """A size that takes seconds: small models, few seeds, one optimiser, unless these are given."""
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
            cloud=128,
            resamples=20,
            quick=True,
        )

    def grid(self) -> list[Size]:
        """The sizes of the fit, (L, M)."""
        return [(depth, width) for depth in self.depths for width in self.widths]

    def trained(self) -> list[Size]:
        """The sizes that optimisers train."""
        return [size for size in self.grid() if size[1] < max(self.widths)]

    def paths(self) -> dict[str, list[Size]]:
        """Sizes along which M / log L is held fixed, grows (the grid's diagonal), or shrinks (its other diagonal)."""
        logs = np.log(self.depths) / np.log(self.depths[0])
        return {
            PATHS[0]: [(d, round(self.widths[0] * log)) for d, log in zip(self.depths, logs, strict=True)],
            PATHS[1]: list(zip(self.depths, self.widths, strict=False)),
            PATHS[2]: list(zip(self.depths, self.widths[::-1], strict=False)),
        }

    def sizes(self) -> list[Size]:
        """All sizes, each once."""
        return list(dict.fromkeys([*self.grid(), *(size for path in self.paths().values() for size in path)]))


def check(config: RatesConfig) -> None:
    """Raise `ValueError` naming the first option that cannot be used."""
    for name in ("batch", "examples", "dim", "key_dim", "steps", "updates", "reference", "depth_steps"):
        at_least(name, getattr(config, name), 1)
    check_seed(config.seed)
    at_least("seeds", config.seeds, 3)
    for name in ("replicates", "cloud", "resamples"):
        at_least(name, getattr(config, name), 2)
    for name in ("tau", "learning_rate", "epsilon"):
        if not 0 < getattr(config, name) < np.inf:
            raise ValueError(f"`{name}` must be positive and finite; got {getattr(config, name)}.")
    for name in ("depths", "widths"):
        values = getattr(config, name)
        if len(values) < 2 or min(values) < 2 or sorted(set(values)) != list(values):
            raise ValueError(f"`{name}` must increase from 2 or more, two at least; got {values}.")
    if min(len(config.grid()), len(config.trained()) if config.optimisers else 6) < 6:
        raise ValueError(
            "`depths` and `widths` must make 6 sizes at least, without the widest for optimisers; got "
            f"{len(config.depths)} and {len(config.widths)}."
        )
    ratios = [width / np.log(depth) for depth, width in config.paths()[PATHS[1]]]
    if np.min(np.diff(ratios)) <= 0:
        raise ValueError(f"`widths` must grow faster than the logarithms of `depths`; got {config.widths}.")
    if not set(config.optimisers) <= set(OPTIMISERS):
        raise ValueError(f"`optimisers` must be of {OPTIMISERS}; got {config.optimisers}.")
