"""The encoder interface, and the average of an encoder over particles."""

import abc
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._backend.chunks import mean_in_chunks
from .._backend.compiled import compiled
from .._backend.plain import PLAIN
from .._backend.precision import Module, guard
from .._checks import ENCODER, instance
from ._checks import check_arguments, check_call, check_fused, check_one, check_particles

Tokens = Float[Array, "token_dim length"]
Batch = Float[Array, "batch token_dim length"]


class AbstractEncoder(Module):
    r"""The action \( g(T, \theta) \) of one particle θ on the tokens T of one prompt.

    To define an encoder, implement `sample` and `__call__`. Batching, averages over particles, gradients, both models
    and the flow then work. A particle is any PyTree of arrays.

    ```python
    class Rotation(wgf.encoders.AbstractEncoder):
        token_dim: int

        def sample(self, key, shape):
            return {"generator": jax.random.normal(key, (*shape, self.token_dim, self.token_dim))}

        def __call__(self, particle, tokens):
            return (particle["generator"] - particle["generator"].T) @ tokens
    ```

    If the average has a faster form, derive from [`wgf.encoders.AbstractFusedEncoder`][]. If particles have a
    reflection, derive from [`wgf.encoders.AbstractOddEncoder`][].

    **Source:** arXiv:2410.23610, section 2.2.
    """

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        guard(cls, "__call__", check_one)

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> PyTree[Array]:
        """Draw particles with leading axes `shape` from the encoder's own law, usually standard normal."""

    @abc.abstractmethod
    def __call__(self, particle: PyTree[Array], tokens: Tokens) -> Tokens:
        r"""Evaluate \( g(T, \theta) \) for one particle and one prompt `[D, N+1]`.

        **Raises:** `ValueError` unless these are one particle of the encoder's structure and one prompt of its token
        dimension. Only shapes and types are compared.
        """

    @compiled
    def mean(self, particles: PyTree[Array], weights: Float[Array, " width"], tokens: Batch) -> Batch:
        r"""Average over particles, \( \sum_j a_j \, g(T_b, \theta_j) \), for every prompt b.

        **Arguments:**

        - `particles`: leading axis `[M]`.
        - `weights`: `[M]`.
        - `tokens`: `[B, D, N+1]`.

        **Returns:** `[B, D, N+1]`.

        **Raises:** `ValueError` if the arguments differ in type, the particles do not fit the encoder, or `__call__`
        does not map `[D, N+1]` to `[D, N+1]` of the same type.

        Cost: M·B evaluations of `__call__`, in chunks whose size follows from the sizes of the arguments
        ([`wgf.encoders.Chunked`][] sets it explicitly). An encoder with a fused form uses that form instead.

        **Source:** arXiv:2410.23610, equation 2.4.
        """
        check_arguments(self, particles, weights, tokens)
        if isinstance(self, AbstractFusedEncoder) and not PLAIN:
            # An encoder with inner encoders needs no check here: their `mean` makes it.
            if not any(isinstance(part, AbstractEncoder) for part in vars(self).values()):
                check_call(self, particles, tokens)
            return check_fused(self, self.fused_mean(particles, weights, tokens), tokens)
        check_call(self, particles, tokens)
        if PLAIN:
            return _plain_mean(self, particles, weights, tokens)
        return mean_in_chunks(functools.partial(_plain_mean, self), particles, weights, tokens)

    def check_particles(self, particles: PyTree[Array], axes: int) -> None:
        """Raise `ValueError` unless particles, behind `axes` leading axes, have `sample`'s structure and shapes."""
        check_particles(self, particles, axes)

    @property
    def is_odd(self) -> bool:
        """Whether `reflect` is defined: by an [`wgf.encoders.AbstractOddEncoder`][], or by all parts of an encoder."""
        return False

    def reflect(self, particle: PyTree[Array]) -> PyTree[Array]:
        r"""An isometry ι of the particle space with \( g(T, \iota\theta) = -g(T, \theta) \).

        It accepts any leading axes: a single particle, or an array of particles.

        **Raises:** `ValueError` unless the encoder is odd.
        """
        raise ValueError(
            f"`encoder` must have a reflection; got {type(self).__name__}, which has none. Derive it from "
            "wgf.encoders.AbstractOddEncoder."
        )


class AbstractFusedEncoder(AbstractEncoder):
    """An encoder that knows a faster form of its average over particles."""

    @abc.abstractmethod
    def fused_mean(self, particles: PyTree[Array], weights: Float[Array, " width"], tokens: Batch) -> Batch:
        """Compute [`wgf.encoders.plain_mean`][], faster. It must be linear in `weights`, and exact at weight 0."""


class AbstractOddEncoder(AbstractEncoder):
    """An encoder with a reflection of its particles that flips the sign of its output."""

    @property
    def is_odd(self) -> bool:
        """True."""
        return True

    @abc.abstractmethod
    def reflect(self, particle: PyTree[Array]) -> PyTree[Array]:
        r"""An isometry ι of the particle space with \( g(T, \iota\theta) = -g(T, \theta) \).

        It accepts any leading axes: a single particle, or an array of particles.
        """


@compiled
def plain_mean(
    encoder: AbstractEncoder, particles: PyTree[Array], weights: Float[Array, " width"], tokens: Batch
) -> Batch:
    r"""The average \( \sum_j a_j \, g(T_b, \theta_j) \) as two nested `vmap`s: the reference for fused means."""
    instance("encoder", encoder, AbstractEncoder, ENCODER)
    check_arguments(encoder, particles, weights, tokens)
    return _plain_mean(encoder, particles, weights, tokens)


def _plain_mean(
    encoder: AbstractEncoder, particles: PyTree[Array], weights: Float[Array, " width"], tokens: Batch
) -> Batch:
    over_particles = jax.vmap(encoder.__call__, in_axes=(0, None))
    return jax.vmap(lambda prompt: jnp.tensordot(weights, over_particles(particles, prompt), 1))(tokens)
