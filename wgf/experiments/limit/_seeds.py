"""Means over the seeds of one size, with their standard errors."""

from typing import NamedTuple

import numpy as np


class SeedMean(NamedTuple):
    """A mean over seeds and its standard error, `[size, tau]` each."""

    value: np.ndarray
    error: np.ndarray


def mean(values: np.ndarray) -> SeedMean:
    """The mean of values `[size, seed, tau]`."""
    return SeedMean(values.mean(axis=1), values.std(axis=1, ddof=1) / np.sqrt(values.shape[1]))


def root_mean_square(values: np.ndarray) -> SeedMean:
    r"""The root mean square of values `[size, seed, tau]`.

    \[ \mathrm{se}(\sqrt Y) = \mathrm{se}(Y) / (2 \sqrt Y) \]
    """
    squares = mean(values**2)
    value = np.sqrt(squares.value)
    return SeedMean(value, np.divide(squares.error, 2 * value, out=np.zeros_like(value), where=value > 0))
