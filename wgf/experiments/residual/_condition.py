"""The conditions of `wgf residual`, and the measured runs of each."""

from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ...analysis import LinearRate, linear_rate
from ...companions import Spectrum
from .._failures import failed
from ._config import ResidualConfig


@dataclass(frozen=True)
class Condition:
    """The settings that one group of runs has in common."""

    residual: bool
    length: int
    temperature: float
    slope: float
    depth: int = 1
    descent: bool = False

    @property
    def method(self) -> str:
        """The method of training."""
        return "descent" if self.descent else "flow"

    @property
    def connection(self) -> str:
        """Whether the model has residual connections: with or without."""
        return "with" if self.residual else "without"

    @property
    def name(self) -> str:
        """The prefix of its arrays in `result.npz`."""
        where = f"n{self.length}_t{self.temperature:g}_g{self.slope:g}_l{self.depth}"
        return f"{self.method}_{self.connection}_{where}"


def conditions_of(config: ResidualConfig) -> list[Condition]:
    """All conditions: lengths and temperatures of one layer, the linear activation, gradient descent, and depths."""
    _, temperature = config.reference
    both, slope = (True, False), config.slope
    single = [Condition(r, n, t, slope) for n in config.lengths for r in both for t in config.temperatures]
    linear = [Condition(True, n, temperature, 1.0) for n in config.lengths if slope != 1]
    descent = [Condition(r, n, temperature, slope, descent=True) for n in config.lengths for r in both]
    deep = [Condition(r, config.lengths[0], temperature, slope, depth) for depth in config.depths for r in both]
    return [*single, *linear, *descent, *deep]


_NO_FIT = LinearRate(float("nan"), float("nan"), float("nan"), float("nan"), (0, 0))


@dataclass(frozen=True)
class Runs:
    """The runs of one condition, one per seed.

    - `times`: training times τ (for gradient descent: learning rate × steps), `[seeds, saves]`.
    - `loss`, `dissipation`, `bound`: L, −dL/dτ and the guaranteed rate, `[seeds, saves]`.
    - `least`, `greatest`: the extreme singular values of each layer's attention output, `[seeds, saves, depth]`.
    """

    condition: Condition
    times: Float[np.ndarray, "seeds saves"]
    loss: Float[np.ndarray, "seeds saves"]
    dissipation: Float[np.ndarray, "seeds saves"]
    bound: Float[np.ndarray, "seeds saves"]
    least: Float[np.ndarray, "seeds saves depth"]
    greatest: Float[np.ndarray, "seeds saves depth"]

    @cached_property
    def fits(self) -> tuple[LinearRate, ...]:
        """The line through each seed's log-loss; NaN for a seed that failed."""
        seeds = zip(self.times, self.loss, failed(self.loss), strict=True)
        return tuple(_NO_FIT if has_failed else linear_rate(t, loss) for t, loss, has_failed in seeds)

    @property
    def rates(self) -> Float[np.ndarray, " seeds"]:
        """The measured rate −d log L/dτ of each seed."""
        return np.array([fit.rate for fit in self.fits])

    @property
    def is_linear(self) -> np.ndarray:
        """Whether each seed's log-loss falls linearly: over at least three decades, with R² of at least 0.98."""
        return np.array([fit.span >= 3 and fit.r_squared >= 0.98 for fit in self.fits])

    def within(self, curves: Float[np.ndarray, "seeds saves"]) -> Float[np.ndarray, " seeds"]:
        """The mean of each seed's curve over the window of its fit."""
        windows = (slice(fit.window[0], fit.window[1] + 1) for fit in self.fits)
        return np.array([curve[window].mean() for curve, window in zip(curves, windows, strict=True)])

    @property
    def conditions(self) -> Float[np.ndarray, "seeds saves"]:
        """The condition number of the last layer's attention output."""
        return self.layers[..., -1]

    @property
    def layers(self) -> Float[np.ndarray, "seeds saves depth"]:
        """The condition number of each layer's attention output."""
        return np.asarray(Spectrum(jnp.asarray(self.least), jnp.asarray(self.greatest)).condition)

    @property
    def slack(self) -> Float[np.ndarray, "seeds saves"]:
        """The instantaneous rate divided by the guaranteed rate. It is at least 1 where the theorem applies."""
        return self.dissipation / (self.loss * self.bound)
