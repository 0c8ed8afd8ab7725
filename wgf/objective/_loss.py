"""Losses of outputs against labels."""

import abc

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Shaped

from .._backend.precision import Module
from .._checks import numbered
from ._shapes import result_of, shape_text


class AbstractLoss(Module):
    """A loss per prompt. To define one, implement `__call__`, or pass a function to [`wgf.Objective`][]."""

    @abc.abstractmethod
    def __call__(
        self, outputs: Float[Array, "batch *classes"], labels: Shaped[Array, "batch ..."]
    ) -> Float[Array, " batch"]:
        """Score outputs against labels, prompt by prompt."""

    def check(self, outputs: tuple[int, ...], labels: Array) -> Array | None:
        """Raise `ValueError` if outputs of this shape cannot be scored against these labels.

        By default this traces the loss, which must return one real number per prompt. It may return the labels with
        checks attached. Traced labels are then checked at run time.
        """
        name, kind = type(self).__name__, jnp.result_type(float)
        rule = f"`loss` must return one real number per prompt, [B] = [{outputs[0]}]"
        structs = (jax.ShapeDtypeStruct(outputs, kind), jax.ShapeDtypeStruct(labels.shape, labels.dtype))
        found = result_of(rule, name, self, *structs)
        if found.shape != outputs[:1]:
            raise ValueError(f"{rule}; {name} returned {shape_text(found)}. Sum over the other axes.")
        return None


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
    r"""\( -\log \mathrm{softmax}(\hat y)_{y} \) for labels \( y \in \{0, \dots, C-1\} \), averaged over positions.

    It takes logits `[B, C]` with labels `[B]`, or logits of every position `[B, C, N+1]`
    ([`wgf.objective.EveryRows`][]) with labels `[B, N+1]`.

    [`wgf.Objective`][] raises if a label is not a class. Called on its own, the loss of such a label is NaN.
    """

    def __call__(
        self, outputs: Float[Array, "batch classes *positions"], labels: Int[Array, "batch *positions"]
    ) -> Float[Array, " batch"]:
        """Score logits against integer classes."""
        classes = (labels >= 0) & (labels < outputs.shape[1])
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.where(classes, labels, 0), axis=1)
        # A product, so that the gradient is NaN too.
        losses = losses * jnp.where(classes, 1, jnp.nan).astype(losses.dtype)
        return jnp.mean(losses.reshape(losses.shape[0], -1), axis=1)

    def check(self, outputs: tuple[int, ...], labels: Array) -> Array:
        """Raise `ValueError` unless labels are classes with the shape of the outputs without the class axis."""
        fits = len(outputs) in (2, 3) and labels.shape == (outputs[0], *outputs[2:])
        if not fits or not jnp.issubdtype(labels.dtype, jnp.integer):
            raise ValueError(
                "`loss` CrossEntropy takes outputs [B, C] and integer labels [B] (readout wgf.objective.QueryRows), or "
                "outputs [B, C, N+1] and integer labels [B, N+1] (readout wgf.objective.EveryRows); "
                f"got outputs {outputs} and labels {labels.shape} of type {labels.dtype}."
            )
        return numbered("labels", labels, outputs[1], "classes")
