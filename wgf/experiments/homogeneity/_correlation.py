"""Rank correlations of measured properties with the final risk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ._trial import CLASSES, Trial


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of one measured property with the final risk, over `count` encoders."""

    name: str
    value: float
    p_value: float
    count: int

    @classmethod
    def of(cls, name: str, x: list[float], y: list[float]) -> "Correlation":
        """The correlation, with a p-value from random permutations."""

        def rank(x: np.ndarray) -> float:
            found: Any = stats.spearmanr(x, y)
            return found.statistic

        test: Any = stats.permutation_test((x,), rank, permutation_type="pairings", n_resamples=1999, rng=0)
        return cls(name, float(test.statistic), float(test.pvalue), len(x))

    def __str__(self) -> str:
        return (
            f"rank correlation of risk with {self.name}: {self.value:+.2f} (p = {self.p_value:.2g}, "
            f"{self.count} encoders)"
        )


def correlations(trials: Sequence[Trial]) -> list[Correlation]:
    """Correlations over neurons and heads, then the correlation of the kernel's eigenvalue over neurons alone.

    Properties that do not vary are left out.
    """
    bare = [trial for trial in trials if trial.specimen.group != "block"]
    neurons = [trial for trial in trials if trial.specimen.group == "neuron"]
    found = [_correlation(bare, name, value) for name, value in _PROPERTIES.items()]
    found.append(_correlation(neurons, f"{_EIGENVALUE}, neurons alone", _PROPERTIES[_EIGENVALUE]))
    return [c for c in found if c is not None]


def _correlation(trials: Sequence[Trial], name: str, value: Callable[[Trial], float]) -> Correlation | None:
    values = [value(trial) for trial in trials]
    return Correlation.of(name, values, [t.median for t in trials]) if len(set(values)) > 1 else None


_EIGENVALUE = "kernel's least eigenvalue"
_PROPERTIES: dict[str, Callable[[Trial], float]] = {
    "full homogeneity (1 or 0)": lambda trial: float(trial.homogeneity == CLASSES[0]),
    _EIGENVALUE: lambda trial: trial.assumptions.least_eigenvalue,
    "growth in T": lambda trial: trial.assumptions.token_growth,
    "growth in theta": lambda trial: trial.assumptions.particle_growth,
    "mean Lipschitz constant": lambda trial: trial.assumptions.mean.constant,
}
