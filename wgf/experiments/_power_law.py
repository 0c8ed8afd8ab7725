"""A power law through positive numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class PowerLaw:
    """The fit y = factor · x^slope to `count` points. The slope's 95 % interval is `slope` ± `interval`."""

    slope: float
    interval: float
    factor: float
    r_squared: float
    count: int

    @classmethod
    def fit(cls, x: np.ndarray, y: np.ndarray) -> "PowerLaw":
        """Fit log y against log x by least squares."""
        line: Any = stats.linregress(np.log(x), np.log(y))
        interval = float(stats.t.ppf(0.975, len(x) - 2) * line.stderr)
        return cls(float(line.slope), interval, float(np.exp(line.intercept)), float(line.rvalue**2), len(x))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The fitted values at `x`."""
        return self.factor * x**self.slope

    def __str__(self) -> str:
        return f"slope {self.slope:.3f} ± {self.interval:.3f} (95 %, {self.count} runs, R² {self.r_squared:.3f})"
