"""The outcome of training in `wgf markov`: which minimum each seed ended in."""

from dataclasses import dataclass

import numpy as np

from .._failures import mark, of_seeds

BIGRAM = 0.1
"""A run has found the bigram solution if its excess is below this share of the unigram solution's."""


@dataclass(frozen=True)
class Trained:
    """The end of every seed, for a family of initialisations.

    `excess[row, chain, seed]` is the mean divergence from the true chain, as a share of the unigram model's. It is 0 at
    the bigram solution and 1 at the bad minimum.
    """

    rows: tuple[str, ...]
    chains: tuple[tuple[float, float], ...]
    excess: np.ndarray

    @property
    def success(self) -> np.ndarray:
        """The share of seeds that found the bigram solution, `[rows, chains]`."""
        return np.mean(self.excess < BIGRAM, axis=-1)

    def heads(self) -> list[str]:
        """The column heads: an empty one, then a chain each."""
        return ["", *(f"({p:g}, {q:g})" for p, q in self.chains)]

    def cells(self) -> list[list[str]]:
        """A row per initialisation: its name, then the number of successful seeds and the median excess per chain."""
        seeds = self.excess.shape[-1]
        found, middle = np.sum(self.excess < BIGRAM, axis=-1), np.median(self.excess, axis=-1)
        return [
            [name, *(f"{n}/{seeds}  {m:.3f}  {mark(e)}".rstrip() for n, m, e in zip(*counts, strict=True))]
            for name, *counts in zip(self.rows, found, middle, self.excess, strict=True)
        ]

    def failures(self) -> list[str]:
        """A line for each row and chain with seeds that failed."""
        return [
            line
            for name, chains in zip(self.rows, self.excess, strict=True)
            for (p, q), excess in zip(self.chains, chains, strict=True)
            for line in of_seeds(f"{name}, p = {p:g}, q = {q:g}", excess)
        ]
