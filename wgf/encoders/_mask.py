"""Masks of attention: which keys a query may see."""

import abc

import equinox as eqx
import numpy as np
from jaxtyping import Bool


class AbstractMask(eqx.Module):
    """Which keys each query of a prompt may attend to, by their positions alone."""

    @abc.abstractmethod
    def __call__(self, length: int) -> Bool[np.ndarray, "keys queries"]:
        """Whether the query at column n may see the key at row j: `[N+1, N+1]`, at least one key for each query."""


class Causal(AbstractMask):
    """A query sees its own position and those before it."""

    def __call__(self, length: int) -> Bool[np.ndarray, "keys queries"]:
        """True on and above the diagonal."""
        return np.triu(np.ones((length, length), bool))
