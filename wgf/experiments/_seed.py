"""The check of a run's seed."""

from .._checks import at_least

_SEEDS = 2**32
"""The number of seeds. In float32 JAX drops the higher bits of a seed, so that large seeds would repeat small ones."""


def check_seed(seed: int) -> None:
    """Raise `ValueError` unless the seed is a whole number from 0 to 2³² − 1."""
    if at_least("seed", seed, 0) >= _SEEDS:
        raise ValueError(f"`seed` must be a whole number below {_SEEDS}; got {seed}.")
