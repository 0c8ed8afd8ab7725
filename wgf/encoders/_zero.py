"""The zero encoder, which removes a half of the average."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import random_key
from ._base import AbstractFusedEncoder, AbstractOddEncoder, Batch, Tokens
from ._checks import leading_axes


class Zero(AbstractFusedEncoder, AbstractOddEncoder):
    r"""The encoder \( g \equiv 0 \), whose particles have no parameters.

    `Average(f, Zero())` is attention-only (h ≡ 0), `Average(Zero(), h)` a mean-field residual network (f ≡ 0).
    """

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> tuple[()]:
        """Return the empty particle."""
        random_key("key", key)
        leading_axes("shape", shape)
        return ()

    def __call__(self, particle: tuple[()], tokens: Tokens) -> Tokens:
        """Return zeros."""
        return jnp.zeros_like(tokens)

    def fused_mean(self, particles: tuple[()], weights: Float[Array, " width"], tokens: Batch) -> Batch:
        """Return zeros."""
        return jnp.zeros_like(tokens)

    def reflect(self, particle: tuple[()]) -> tuple[()]:
        """Return the empty particle."""
        return particle
