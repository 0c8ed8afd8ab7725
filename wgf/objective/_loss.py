"""Losses of outputs against labels."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Shaped

from .._backend.precision import Module
from .._checks import numbered, shown
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

    **Arguments:**

    - `ignored`: a label that is no class, e.g. -100. Positions with it do not count: neither in the sum nor in the
      number that it is divided by. A prompt of which no position counts has the loss 0. Default None: all count.

    [`wgf.Objective`][] raises if any other label is not a class. Called on its own, the loss of such a label is NaN.

    **Raises:** `ValueError` if `ignored` is not a whole number below 0.
    """

    ignored: int | None = eqx.field(static=True)

    def __init__(self, ignored: int | None = None):
        if ignored is not None and (isinstance(ignored, bool) or not isinstance(ignored, int) or ignored >= 0):
            raise ValueError(f"`ignored` must be a whole number below 0, which is no class; got {shown(ignored)}.")
        self.ignored = ignored

    def __call__(
        self, outputs: Float[Array, "batch classes *positions"], labels: Int[Array, "batch *positions"]
    ) -> Float[Array, " batch"]:
        """Score logits against integer classes."""
        counted = jnp.ones(labels.shape, bool) if self.ignored is None else labels != self.ignored
        classes = (labels >= 0) & (labels < outputs.shape[1])
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.where(classes, labels, 0), axis=1)
        # A product, so that the gradient is NaN too.
        losses = losses * jnp.where(classes | ~counted, 1, jnp.nan).astype(losses.dtype)
        losses, counted = (x.reshape(losses.shape[0], -1) for x in (losses, counted))
        if self.ignored is None:
            return jnp.mean(losses, axis=1)
        # Of a prompt without positions that count, the mean is 0 / 1.
        number = jnp.maximum(jnp.sum(counted, axis=1), 1).astype(losses.dtype)
        return jnp.sum(jnp.where(counted, losses, 0), axis=1) / number

    def check(self, outputs: tuple[int, ...], labels: Array) -> Array:
        """Raise `ValueError` unless labels are classes with the shape of the outputs without the class axis."""
        fits = len(outputs) in (2, 3) and labels.shape == (outputs[0], *outputs[2:])
        if not fits or not jnp.issubdtype(labels.dtype, jnp.integer):
            raise ValueError(
                "`loss` CrossEntropy takes outputs [B, C] and integer labels [B] (readout wgf.objective.QueryRows), or "
                "outputs [B, C, N+1] and integer labels [B, N+1] (readout wgf.objective.EveryRows); "
                f"got outputs {outputs} and labels {labels.shape} of type {labels.dtype}."
            )
        if self.ignored is None:
            return numbered("labels", labels, outputs[1], "classes")
        ignored = labels == self.ignored
        classes = numbered("labels", jnp.where(ignored, jnp.zeros_like(labels), labels), outputs[1], "classes")
        return jnp.where(ignored, labels, classes.astype(labels.dtype))
