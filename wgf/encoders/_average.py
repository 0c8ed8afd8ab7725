"""The averaged encoder g = ½ (f + h): one particle is a head and a neuron."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._checks import ENCODER, instance
from .._random import purpose
from ._base import AbstractEncoder, AbstractFusedEncoder, Batch, Tokens


class Pair(NamedTuple):
    """A particle θ = (θ_f, θ_h) of the averaged encoder."""

    f: PyTree[Array]
    h: PyTree[Array]


class Average(AbstractFusedEncoder):
    r"""The average of two encoders, \( g(T, \theta) = \tfrac12 \big(f(T, \theta_f) + h(T, \theta_h)\big) \).

    In the finite [`wgf.Transformer`][] the two act one after the other, each for half a step: self-attention, then
    feed-forward. In the limit of small steps this gives g.

    **Arguments:**

    - `f`, `h`: any two encoders on tokens of the same dimension; [`wgf.encoders.Zero`][] removes a half.

    Particles are [`wgf.encoders.Pair`][]s. The reflection reflects both halves.

    **Raises:** `ValueError` if a half is not an encoder, or the token dimensions differ. `reflect` raises it if a half
    has no reflection.

    **Source:** arXiv:2410.23610, section 3.1.
    """

    f: AbstractEncoder
    h: AbstractEncoder

    def __check_init__(self):
        instance("f", self.f, AbstractEncoder, ENCODER)
        instance("h", self.h, AbstractEncoder, ENCODER)
        dims = [getattr(part, "token_dim", None) for part in (self.f, self.h)]
        if all(isinstance(dim, int) for dim in dims) and dims[0] != dims[1]:
            raise ValueError(f"`h` must have the token dimension of `f`, {dims[0]}; got {dims[1]}.")

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Pair:
        """Draw both halves independently."""
        f_key, h_key = jax.random.split(purpose(key, "encoders.Average"))
        return Pair(self.f.sample(f_key, shape), self.h.sample(h_key, shape))

    def __call__(self, particle: Pair, tokens: Tokens) -> Tokens:
        """Average the two halves on one prompt."""
        return (self.f(particle.f, tokens) + self.h(particle.h, tokens)) / 2

    def fused_mean(self, particles: Pair, weights: Float[Array, " width"], tokens: Batch) -> Batch:
        """Average the means of the two halves."""
        return (self.f.mean(particles.f, weights, tokens) + self.h.mean(particles.h, weights, tokens)) / 2

    @property
    def is_odd(self) -> bool:
        """Whether both halves are odd."""
        return self.f.is_odd and self.h.is_odd

    def reflect(self, particle: Pair) -> Pair:
        """Reflect both halves."""
        return Pair(self.f.reflect(particle.f), self.h.reflect(particle.h))
