"""Readouts: the part of the final tokens that enters the loss."""

import abc

import equinox as eqx
from jaxtyping import Array, Float

from .._backend.precision import Module
from .._checks import at_least

Batch = Float[Array, "batch token_dim length"]


class AbstractReadout(Module):
    """A map of final tokens `[B, D, N+1]` to outputs `[B]`, `[B, C]` or, at every position, `[B, C, N+1]`.

    To define one, implement `__call__`, or pass a function to [`wgf.Objective`][].
    """

    @abc.abstractmethod
    def __call__(self, tokens: Batch) -> Float[Array, "batch *outputs"]:
        """Read the outputs."""

    def check(self, token_dim: int) -> None:
        """Raise `ValueError` if the readout does not fit tokens of this dimension. By default all fit."""


class QueryEntry(AbstractReadout):
    r"""One entry of the query column, \( \mathrm{Read}(T) = T_{row, N} \).

    **Source:** arXiv:2410.23610, section 2.2.
    """

    row: int = eqx.field(static=True)

    def __init__(self, row: int):
        self.row = at_least("row", row, 0)

    def __call__(self, tokens: Batch) -> Float[Array, " batch"]:
        """Read one number per prompt."""
        return tokens[:, self.row, -1]

    def check(self, token_dim: int) -> None:
        """Raise `ValueError` unless row < D."""
        if self.row >= token_dim:
            raise ValueError(f"`readout` must read a row below the token dimension {token_dim}; got {self.row}.")


class QueryRows(AbstractReadout):
    """`count` rows of the query column, from row `start` on: a vector, or the logits of `count` classes."""

    start: int = eqx.field(static=True)
    count: int = eqx.field(static=True)

    def __init__(self, start: int, count: int):
        self.start, self.count = at_least("start", start, 0), at_least("count", count, 1)

    def __call__(self, tokens: Batch) -> Float[Array, "batch classes"]:
        """Read `count` numbers per prompt."""
        return tokens[:, self.start : self.start + self.count, -1]

    def check(self, token_dim: int) -> None:
        """Raise `ValueError` unless the rows lie within the tokens."""
        _check_rows(self.start, self.count, token_dim)


class EveryRows(AbstractReadout):
    """`count` rows of every column, from row `start` on: the logits of `count` classes at each position.

    This is the readout of next-token prediction. Use it with [`wgf.objective.CrossEntropy`][] and labels `[B, N+1]`.
    The encoder should be causal, e.g. `wgf.encoders.SoftmaxAttention(..., mask=wgf.encoders.Causal())`. Otherwise a
    position sees the token that it must predict.
    """

    start: int = eqx.field(static=True)
    count: int = eqx.field(static=True)

    def __init__(self, start: int, count: int):
        self.start, self.count = at_least("start", start, 0), at_least("count", count, 1)

    def __call__(self, tokens: Batch) -> Float[Array, "batch classes length"]:
        """Read `count` numbers per column."""
        return tokens[:, self.start : self.start + self.count]

    def check(self, token_dim: int) -> None:
        """Raise `ValueError` unless the rows lie within the tokens."""
        _check_rows(self.start, self.count, token_dim)


def _check_rows(start: int, count: int, token_dim: int) -> None:
    if (end := start + count) > token_dim:
        raise ValueError(f"`readout` must read rows below the token dimension {token_dim}; got up to {end}.")
