"""Softmax self-attention: one particle is one head."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._backend.attention import tile_of_heads
from .._backend.compiled import compiled
from .._backend.tiles import tiled_sum
from .._checks import at_least, check_memory, instance
from .._random import purpose
from ._base import AbstractFusedEncoder, AbstractOddEncoder, Batch, Tokens
from ._checks import leading_axes
from ._mask import AbstractMask


class Head(NamedTuple):
    """The parameters of one attention head: P = D² + 2kD numbers."""

    value: Float[Array, "*shape token_dim token_dim"]
    key: Float[Array, "*shape key_dim token_dim"]
    query: Float[Array, "*shape key_dim token_dim"]


class SoftmaxAttention(AbstractFusedEncoder, AbstractOddEncoder):
    r"""A self-attention head, \( f(T, \theta) = V T \, \mathrm{softmax}\big((K T)^\top (Q T) / \sqrt{k}\big) \).

    The softmax runs over the keys, so each column of the score matrix (a query) sums to 1. Masked keys are left out of
    the softmax.

    **Arguments:**

    - `token_dim`: the dimension D of a token.
    - `key_dim`: the dimension k of keys and queries.
    - `mask`: the keys that a query sees, e.g. [`wgf.encoders.Causal`][] or [`wgf.encoders.Banded`][]. Default None: all
      keys.

    Particles are [`wgf.encoders.Head`][]s. The reflection is V → −V. The encoder is 1-homogeneous in V, so it meets the
    partial 1-homogeneity of arXiv:2410.23610, assumption 3.

    **Raises:** `ValueError` if a dimension is below 1 or `mask` is not a mask.

    Cost of a mean: O(M B (N² (k + D) + N (D² + kD))).

    **Source:** arXiv:2410.23610, section 2.2.
    """

    token_dim: int = eqx.field(static=True)
    key_dim: int = eqx.field(static=True)
    mask: AbstractMask | None

    def __init__(self, token_dim: int, *, key_dim: int, mask: AbstractMask | None = None):
        self.token_dim = at_least("token_dim", token_dim, 1)
        self.key_dim = at_least("key_dim", key_dim, 1)
        check_memory(each=self.token_dim, token_dim=self.token_dim)
        check_memory(token_dim=self.token_dim, key_dim=self.key_dim)
        example = "a mask such as wgf.encoders.Causal(), or None"
        self.mask = None if mask is None else instance("mask", mask, AbstractMask, example)

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Head:
        """Draw standard normal heads with leading axes `shape`."""
        shape = leading_axes("shape", shape)
        keys = jax.random.split(purpose(key, "encoders.SoftmaxAttention"), 3)
        square, wide = (self.token_dim, self.token_dim), (self.key_dim, self.token_dim)
        return Head(*(jax.random.normal(k, (*shape, *s)) for k, s in zip(keys, (square, wide, wide), strict=True)))

    def __call__(self, particle: Head, tokens: Tokens) -> Tokens:
        """Apply one head to one prompt."""
        scores = (particle.key @ tokens).T @ (particle.query @ tokens) / math.sqrt(self.key_dim)
        if self.mask is not None:
            scores = jnp.where(self.mask(tokens.shape[1]), scores, -jnp.inf)
        return particle.value @ tokens @ jax.nn.softmax(scores, axis=0)

    @compiled
    def fused_mean(self, particles: Head, weights: Float[Array, " width"], tokens: Batch) -> Batch:
        """Average over heads, in tiles that fit in the cache."""
        # The weights scale the values, in which the encoder is linear. The gradient of a head is then its weight
        # times an accurate number, even for a tiny weight.
        value = weights[:, None, None] * particles.value
        query = particles.query / math.sqrt(self.key_dim)
        length = tokens.shape[2]
        seen = None if self.mask is None else self.mask(length)
        tile = tile_of_heads(self.key_dim, self.token_dim, length, seen)
        return tiled_sum(tile, (value, particles.key, query), tokens)

    def reflect(self, particle: Head) -> Head:
        """Flip the sign of the value matrix."""
        return particle._replace(value=-particle.value)
