"""Attention masks: which keys a query may see."""

import abc

import equinox as eqx
import numpy as np
from jaxtyping import Bool

from .._backend.precision import Module
from .._checks import at_least, check_memory, shown


class AbstractMask(Module):
    """Which keys each query of a prompt may attend to, by their positions alone."""

    @abc.abstractmethod
    def __call__(self, length: int) -> Bool[np.ndarray, "keys queries"]:
        """Whether the query at column n may see the key at row j, `[N+1, N+1]`. Every query must see a key."""


class Causal(AbstractMask):
    """A query sees its own position and those before it, j ≤ n."""

    def __call__(self, length: int) -> Bool[np.ndarray, "keys queries"]:
        """True on and above the diagonal."""
        return np.triu(np.ones((_length(length),) * 2, bool))


class Banded(AbstractMask):
    r"""Local attention: a query sees the positions near its own, \( |j - n| \le r \).

    **Arguments:**

    - `reach`: r ≥ 0. A query sees at most 2r + 1 keys. Together with [`wgf.encoders.Causal`][] it sees at most r + 1:
      the sliding window `Intersection(Causal(), Banded(r))`. With r = 0 attention is the linear map V T; with r ≥ N
      every key is seen.

    **Raises:** `ValueError` if r is below 0.

    Cost: that of attention without a mask. All scores are computed, then those outside the band are discarded.

    **Source:** I. Beltagy, M. E. Peters, A. Cohan, *Longformer: the long-document transformer*, arXiv:2004.05150,
    section 3.1.
    """

    reach: int = eqx.field(static=True)

    def __init__(self, reach: int):
        self.reach = at_least("reach", reach, 0)

    def __call__(self, length: int) -> Bool[np.ndarray, "keys queries"]:
        """True on the diagonal and on r diagonals to either side."""
        positions = np.arange(_length(length))
        return np.abs(positions[:, None] - positions) <= self.reach


class Intersection(AbstractMask):
    """A query sees the keys that all of several masks allow.

    **Arguments:**

    - `masks`: at least one mask, e.g. `Intersection(Causal(), Banded(2))`.

    **Raises:** `ValueError` if no mask is given or an argument is not a mask. When applied, it raises if a query sees
    no key.
    """

    masks: tuple[AbstractMask, ...]

    def __init__(self, *masks: AbstractMask):
        if not masks or not all(isinstance(mask, AbstractMask) for mask in masks):
            raise ValueError(f"`masks` must be at least one mask, e.g. wgf.encoders.Causal(); got {shown(masks)}.")
        self.masks = masks

    def __call__(self, length: int) -> Bool[np.ndarray, "keys queries"]:
        """True where every mask is true."""
        seen = np.logical_and.reduce([mask(length) for mask in self.masks])
        if not seen.any(axis=0).all():
            blind = int(np.argmin(seen.any(axis=0)))
            raise ValueError(
                f"`masks` must leave every query a key; got none for the query at column {blind}. Widen a mask."
            )
        return seen


def _length(length: int) -> int:
    length = at_least("length", length, 1)
    check_memory(each=length, length=length)
    return length
