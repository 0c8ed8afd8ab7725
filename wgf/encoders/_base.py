"""What an encoder is, and its average over particles."""

import abc
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._backend.chunks import mean_in_chunks
from .._backend.compiled import compiled
from .._backend.plain import PLAIN
from .._backend.precision import Module
from ._checks import check_arguments, check_call, check_fused, check_particles

Tokens = Float[Array, "token_dim length"]
Batch = Float[Array, "batch token_dim length"]


class AbstractEncoder(Module):
    r"""The action \( g(T, \theta) \) of one particle θ on the tokens T of one prompt.

    Subclass it with `sample` and `__call__`; all else follows: batching, the average over particles, gradients, both
    models, the flow. A particle is any PyTree of arrays.

    ```python
    class Rotation(wgf.encoders.AbstractEncoder):
        token_dim: int

        def sample(self, key, shape):
            return {"generator": jax.random.normal(key, (*shape, self.token_dim, self.token_dim))}

        def __call__(self, particle, tokens):
            return (particle["generator"] - particle["generator"].T) @ tokens
    ```

    An encoder whose average has a faster form derives from [`wgf.encoders.AbstractFusedEncoder`][]; one that has a
    reflection, from [`wgf.encoders.AbstractOddEncoder`][].

    **Source:** arXiv:2410.23610, section 2.2.
    """

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> PyTree[Array]:
        """Draw particles with leading axes `shape` from the encoder's own law, by custom standard normal."""

    @abc.abstractmethod
    def __call__(self, particle: PyTree[Array], tokens: Tokens) -> Tokens:
        r"""Evaluate \( g(T, \theta) \) for one particle and one prompt `[D, N+1]`."""

    @compiled
    def mean(self, particles: PyTree[Array], weights: Float[Array, " width"], tokens: Batch) -> Batch:
        r"""Average over particles, \( \sum_j a_j \, g(T_b, \theta_j) \), for every prompt b.

        **Arguments:**

        - `particles`: leading axis `[M]`.
        - `weights`: `[M]`.
        - `tokens`: `[B, D, N+1]`.

        **Returns:** `[B, D, N+1]`. Cost: M·B evaluations of `__call__`, in chunks whose size depends on those of the
        arguments ([`wgf.encoders.Chunked`][] sets it by hand), or the fused form where the encoder has one.

        **Raises:** `ValueError` if arguments differ in type, particles are not the encoder's, or `__call__` does not
        map `[D, N+1]` to `[D, N+1]` of the same type.
        """
        check_arguments(self, particles, weights, tokens)
        if isinstance(self, AbstractFusedEncoder) and not PLAIN:
            # Encoders within others are checked by their own means.
            if not any(isinstance(part, AbstractEncoder) for part in vars(self).values()):
                check_call(self, particles, tokens)
            return check_fused(self, self.fused_mean(particles, weights, tokens), tokens)
        check_call(self, particles, tokens)
        if PLAIN:
            return plain_mean(self, particles, weights, tokens)
        return mean_in_chunks(functools.partial(plain_mean, self), particles, weights, tokens)

    def check_particles(self, particles: PyTree[Array], axes: int) -> None:
        """Raise `ValueError` unless particles with so many leading axes have the structure and shapes of `sample`'s."""
        check_particles(self, particles, axes)


class AbstractFusedEncoder(AbstractEncoder):
    """An encoder that knows a faster form of its average over particles."""

    @abc.abstractmethod
    def fused_mean(self, particles: PyTree[Array], weights: Float[Array, " width"], tokens: Batch) -> Batch:
        """The same as [`wgf.encoders.plain_mean`][], faster. It must be linear in `weights` and right at weight 0."""


class AbstractOddEncoder(AbstractEncoder):
    """An encoder with a reflection of its particles that flips the sign of its output."""

    @abc.abstractmethod
    def reflect(self, particle: PyTree[Array]) -> PyTree[Array]:
        r"""An isometry ι of the particle space with \( g(T, \iota\theta) = -g(T, \theta) \).

        Leading axes are allowed, so it acts on single particles and on arrays of them alike.
        """


@compiled
def plain_mean(
    encoder: AbstractEncoder, particles: PyTree[Array], weights: Float[Array, " width"], tokens: Batch
) -> Batch:
    r"""The average \( \sum_j a_j \, g(T_b, \theta_j) \) as two nested `vmap`s: the form that fused ones are held to."""
    over_particles = jax.vmap(encoder.__call__, in_axes=(0, None))
    return jax.vmap(lambda prompt: jnp.tensordot(weights, over_particles(particles, prompt), 1))(tokens)


def reflect(encoder: AbstractEncoder, particle: PyTree[Array]) -> PyTree[Array]:
    """Reflect a particle of an encoder that is part of another; raise `ValueError` if it has no reflection."""
    if not isinstance(encoder, AbstractOddEncoder):
        raise ValueError(
            "`reflect` must be defined by every part of the encoder: derive it from wgf.encoders.AbstractOddEncoder; "
            f"got {type(encoder).__name__}."
        )
    return encoder.reflect(particle)
