"""Masks of attention: which keys a query may see."""

import abc

import equinox as eqx
import numpy as np
from jaxtyping import Bool

from .._backend.precision import Module
from .._checks import at_least


class AbstractMask(Module):
    """Which keys each query of a prompt may attend to, by their positions alone."""

    @abc.abstractmethod
    def __call__(self, length: int) -> Bool[np.ndarray, "keys queries"]:
        """Whether the query at column n may see the key at row j: `[N+1, N+1]`, at least one key for each query."""


class Causal(AbstractMask):
    """A query sees its own position and those before it, j ≤ n."""

    def __call__(self, length: int) -> Bool[np.ndarray, "keys queries"]:
        """True on and above the diagonal."""
        return np.triu(np.ones((length, length), bool))


class Banded(AbstractMask):
    r"""Local attention: a query sees the positions near its own, \( |j - n| \le r \).

    **Arguments:**

    - `reach`: r ≥ 0; a query sees at most 2r + 1 keys, r + 1 with [`wgf.encoders.Causal`][] as well (the sliding
      window `Intersection(Causal(), Banded(r))`). With r = 0 attention is the linear map V T; with r ≥ N all is seen.

    Cost: that of attention without a mask. The band is cut out of all scores, not the scores out of the band.

    **Raises:** `ValueError` if r is below 0.

    **Source:** I. Beltagy, M. E. Peters, A. Cohan, *Longformer: the long-document transformer*, arXiv:2004.05150,
    section 3.1.
    """

    reach: int = eqx.field(static=True)

    def __init__(self, reach: int):
        self.reach = at_least("reach", reach, 0)

    def __call__(self, length: int) -> Bool[np.ndarray, "keys queries"]:
        """True on the diagonal and on r diagonals to either side."""
        positions = np.arange(length)
        return np.abs(positions[:, None] - positions) <= self.reach


class Intersection(AbstractMask):
    """A query sees what each of several masks lets it see.

    **Arguments:**

    - `masks`: one mask at least, e.g. `Intersection(Causal(), Banded(2))`.

    **Raises:** `ValueError` if there is none, one is no mask, or (when it is applied) they leave a query without a key.
    """

    masks: tuple[AbstractMask, ...]

    def __init__(self, *masks: AbstractMask):
        if not masks or not all(isinstance(mask, AbstractMask) for mask in masks):
            raise ValueError(f"`masks` must be one mask at least, such as wgf.encoders.Causal(); got {masks!r}.")
        self.masks = masks

    def __call__(self, length: int) -> Bool[np.ndarray, "keys queries"]:
        """True where every mask is."""
        seen = np.logical_and.reduce([mask(length) for mask in self.masks])
        if not seen.any(axis=0).all():
            blind = int(np.argmin(seen.any(axis=0)))
            raise ValueError(f"`masks` must leave each query a key to see; got none for the query at column {blind}.")
        return seen
