"""`Prompts`: the data measure μ as a weighted set of prompts with labels."""

import math
from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from .._backend.compat import is_traced
from .._checks import at_least, check_memory, finite, floats, holds, numbers, on_host
from .._display.text import Brief, counted, kind, memory
from .._random import purpose


class Prompts(Brief):
    r"""A weighted set of prompts, the data measure \( \mu = \sum_b \mu_b \delta_{(H_b, y_b)} \).

    The columns of a prompt H are its tokens; the last column is the query, whose label is hidden (0 in row
    `label_row`) and stored in `labels`.

    **Arguments:**

    - `tokens`: the prompts, `[B, D, N+1]`, with N ≥ 1 examples before the query.
    - `labels`: `[B]` (a number or an integer class per prompt), `[B, C]` (a vector per prompt) or integers `[B, N+1]`
      (a class per position).
    - `label_row`: the row of a token that holds y. The default readout reads it at the query.
    - `weights`: `[B]`, not negative, with sum 1. Default: uniform.

    **Raises:** `ValueError` naming the argument if a shape does not fit, an entry is not finite, or the weights
    are negative or do not sum to 1.

    Its `repr` is one line, and `summary()` has several. `equinox.tree_pformat` gives its whole structure.

    **Source:** arXiv:2410.23610, section 2.1.
    """

    tokens: Float[Array, "batch token_dim length"]
    labels: Float[Array, " batch"] | Float[Array, "batch classes"] | Int[Array, " batch"] | Int[Array, "batch length"]
    weights: Float[Array, " batch"]
    label_row: int = eqx.field(static=True)

    def __init__(
        self,
        tokens: ArrayLike,
        labels: ArrayLike,
        *,
        label_row: int,
        weights: ArrayLike | None = None,
    ):
        self.tokens = _check_tokens(tokens)
        batch, dim, _ = self.tokens.shape
        self.labels = _check_labels(labels, batch, self.tokens.dtype)
        self.weights = _check_weights(weights, batch, self.tokens.dtype)
        self.label_row = at_least("label_row", label_row, 0)
        if self.label_row >= dim:
            raise ValueError(f"`label_row` must be a row of the tokens, 0 to {dim - 1}; got {label_row}.")

    def _facts(self) -> Iterator[str]:
        if len(getattr(self.tokens, "shape", ())) == 3:
            yield f"{counted(self.batch, 'prompt')} of {counted(self.examples, 'example')}"
            yield f"token_dim {self.token_dim}"
        else:
            yield f"tokens {kind(self.tokens)}"
        yield f"labels {kind(self.labels)}"
        yield memory(self)

    @property
    def batch(self) -> int:
        """The number of prompts, B."""
        return self.tokens.shape[0]

    @property
    def token_dim(self) -> int:
        """The dimension of a token, D."""
        return self.tokens.shape[1]

    @property
    def examples(self) -> int:
        """The number of labelled examples before the query, N."""
        return self.tokens.shape[2] - 1

    def draw(self, key: PRNGKeyArray, size: int) -> "Prompts":
        """Draw `size` prompts with replacement by weight, as a data measure with equal weights.

        **Raises:** `ValueError` if `size` is below 1, or `key` is not a random key.
        """
        key, size = purpose(key, "prompts.Prompts.draw"), at_least("size", size, 1)
        _, *sizes = self.tokens.shape
        check_memory(each=math.prod(sizes), size=size)
        rows = jax.random.choice(key, self.batch, (size,), p=self.weights)
        return Prompts(self.tokens[rows], self.labels[rows], label_row=self.label_row)

    def expect(self, values: Float[Array, " batch"]) -> Float[Array, ""]:
        r"""The mean over the data, \( E_\mu[v] = \sum_b \mu_b v_b \)."""
        values = numbers("values", values)
        if values.shape != self.weights.shape:
            raise ValueError(f"`values` must have shape [B] = {self.weights.shape}; got {values.shape}.")
        return jnp.sum(self.weights * values)

    @eqx.filter_jit
    def label_rms(self) -> Float[Array, ""]:
        """The root mean square of the labels: the reference scale of output errors."""
        squares = jnp.sum(jnp.reshape(self.labels.astype(self.tokens.dtype), (self.batch, -1)) ** 2, axis=1)
        return jnp.sqrt(self.expect(squares))


def _check_tokens(tokens: ArrayLike) -> Array:
    tokens = floats("tokens", tokens)
    if tokens.ndim != 3 or 0 in tokens.shape:
        raise ValueError(f"`tokens` must have shape [B, D, N+1], all at least 1; got shape {tokens.shape}.")
    if tokens.shape[2] < 2:
        raise ValueError(
            f"`tokens` must hold at least one example before the query (N >= 1); got shape {tokens.shape}, "
            f"that is N = {tokens.shape[2] - 1}."
        )
    return tokens


def _check_labels(labels: ArrayLike, batch: int, dtype) -> Array:
    array = numbers("labels", labels)
    if array.ndim not in (1, 2) or array.shape[0] != batch or 0 in array.shape:
        raise ValueError(
            f"`labels` must have shape [B] or [B, C] with B = {batch} as in `tokens`; got shape {array.shape}."
        )
    if not jnp.issubdtype(array.dtype, jnp.integer):
        return finite("labels", array).astype(dtype)
    # NumPy's 64-bit integers may not fit in JAX's 32-bit integers.
    if isinstance(labels, np.ndarray) and not np.array_equal(labels, on_host(array)):
        raise ValueError(f"`labels` must fit in {array.dtype}; got {labels.min()} to {labels.max()}.")
    return array


def _check_weights(weights: ArrayLike | None, batch: int, dtype) -> Array:
    if weights is None:
        return jax.device_put(np.full(batch, 1 / batch, dtype))
    weights = finite("weights", weights).astype(dtype)
    if weights.shape != (batch,):
        raise ValueError(f"`weights` must have shape [B] = [{batch}]; got shape {weights.shape}.")
    known = on_host(weights)
    valid = (known >= 0).all() & (abs(known.sum() - 1) < 1e-4)
    got = None if is_traced(known) else f"sum {float(known.sum())}, least {float(known.min())}"
    return holds(weights, valid, "`weights` must be non-negative with sum 1 (divide by their sum)", got)
