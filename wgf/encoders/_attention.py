"""Softmax self-attention: one particle is one head."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import at_least
from ._attention_kernel import sum_of_heads
from ._base import AbstractFusedEncoder, AbstractOddEncoder, Batch, Tokens


class Head(NamedTuple):
    """The parameters of one attention head: P = D² + 2kD numbers."""

    value: Float[Array, "*shape token_dim token_dim"]
    key: Float[Array, "*shape key_dim token_dim"]
    query: Float[Array, "*shape key_dim token_dim"]


class SoftmaxAttention(AbstractFusedEncoder, AbstractOddEncoder):
    r"""A self-attention head, \( f(T, \theta) = V T \, \mathrm{softmax}\big((K T)^\top (Q T) / \sqrt{k}\big) \).

    The softmax runs over the keys, so each column of the score matrix (a query) sums to 1.

    **Arguments:**

    - `token_dim`: the dimension D of a token.
    - `key_dim`: the dimension k of keys and queries.

    Particles are [`wgf.encoders.Head`][]s. The reflection is V → −V. The encoder is 1-homogeneous in V, hence partially
    1-homogeneous as arXiv:2410.23610, assumption 3 asks. Cost of a mean: O(M B (N² (k + D) + N (D² + kD))).

    **Source:** arXiv:2410.23610, section 2.2.
    """

    token_dim: int = eqx.field(static=True)
    key_dim: int = eqx.field(static=True)

    def __init__(self, token_dim: int, *, key_dim: int):
        self.token_dim = at_least("token_dim", token_dim, 1)
        self.key_dim = at_least("key_dim", key_dim, 1)

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Head:
        """Draw standard normal heads with leading axes `shape`."""
        keys = jax.random.split(key, 3)
        square, wide = (self.token_dim, self.token_dim), (self.key_dim, self.token_dim)
        return Head(*(jax.random.normal(k, (*shape, *s)) for k, s in zip(keys, (square, wide, wide), strict=True)))

    def __call__(self, particle: Head, tokens: Tokens) -> Tokens:
        """Apply one head to one prompt."""
        scores = (particle.key @ tokens).T @ (particle.query @ tokens) / math.sqrt(self.key_dim)
        return particle.value @ tokens @ jax.nn.softmax(scores, axis=0)

    def fused_mean(self, particles: Head, weights: Float[Array, " width"], tokens: Batch) -> Batch:
        """The average over heads, in tiles that stay in the cache."""
        # Weights go into the values, in which the encoder is linear: the gradient of a head is then its
        # weight times an accurate number, however small the weight.
        value = weights[:, None, None] * particles.value
        query = particles.query / math.sqrt(self.key_dim)
        return sum_of_heads(value, particles.key, query, tokens)

    def reflect(self, particle: Head) -> Head:
        """Flip the sign of the value matrix."""
        return particle._replace(value=-particle.value)
