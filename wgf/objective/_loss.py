"""Losses of outputs against labels."""

import abc

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Shaped


class AbstractLoss(eqx.Module):
    """A loss for each prompt."""

    @abc.abstractmethod
    def __call__(
        self, outputs: Float[Array, "batch *classes"], labels: Shaped[Array, "batch ..."]
    ) -> Float[Array, " batch"]:
        """Score outputs against labels, prompt by prompt."""

    @abc.abstractmethod
    def check(self, outputs: tuple[int, ...], labels: Array) -> None:
        """Raise `ValueError` if outputs of this shape cannot be scored against these labels."""


class HalfSquaredError(AbstractLoss):
    r"""\( \tfrac12 \|\hat y - y\|^2 \).

    **Source:** arXiv:2410.23610, equation 2.6.
    """

    def __call__(
        self, outputs: Float[Array, "batch *classes"], labels: Float[Array, "batch *classes"]
    ) -> Float[Array, " batch"]:
        """Score outputs `[B]` or `[B, C]` against labels of the same shape."""
        squares = (outputs - labels.astype(outputs.dtype)) ** 2
        return jnp.sum(squares.reshape(squares.shape[0], -1), axis=1) / 2

    def check(self, outputs: tuple[int, ...], labels: Array) -> None:
        """Raise `ValueError` unless the shapes agree."""
        if outputs != labels.shape:
            raise ValueError(f"`labels` must have the shape of the readout's outputs, {outputs}; got {labels.shape}.")


class CrossEntropy(AbstractLoss):
    r"""\( -\log \mathrm{softmax}(\hat y)_{y} \) for class labels \( y \in \{0, \dots, C-1\} \)."""

    def __call__(self, outputs: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> Float[Array, " batch"]:
        """Score logits `[B, C]` against integer classes `[B]`."""
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)

    def check(self, outputs: tuple[int, ...], labels: Array) -> None:
        """Raise `ValueError` unless outputs are `[B, C]` and labels are integers `[B]`."""
        if len(outputs) != 2 or labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
            raise ValueError(
                "`loss` CrossEntropy takes outputs [B, C] (readout wgf.objective.QueryRows) and integer labels [B]; "
                f"got outputs {outputs} and labels {labels.shape} of type {labels.dtype}."
            )
