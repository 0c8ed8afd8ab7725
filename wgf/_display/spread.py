"""A choice of a few things in a row."""

import numpy as np


def evenly_spread(count: int, most: int) -> np.ndarray:
    """The indices of at most `most` of `count` things in a row, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
