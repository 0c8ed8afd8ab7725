"""The seed of a run."""

from .._checks import at_least

_SEEDS = 2**32
"""In float32 JAX drops the higher bits of a seed, so that greater seeds would repeat smaller ones."""


def check_seed(seed: int) -> None:
    """Raise `ValueError` unless the seed is a whole number from 0 to 2³² − 1."""
    if at_least("seed", seed, 0) >= _SEEDS:
        raise ValueError(f"`seed` must be a whole number below {_SEEDS}; got {seed}.")
