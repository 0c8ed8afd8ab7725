"""Initial laws ρ₀, from which the finite model and the limit are drawn."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PRNGKeyArray, PyTree

from .._checks import at_least, holds, is_traced
from ..encoders import AbstractEncoder
from ._layered import Layered
from ._sampling import AbstractSampling, Independent
from ._spectral import Rule, Spectral, quadrature


class AbstractInitialLaw(eqx.Module):
    """A law ρ₀ of particles, the same at every depth."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, width: int) -> PyTree[Array]:
        """Draw `width` particles, leading axis `[width]`."""

    def layered(self, depth: int, width: int, key: PRNGKeyArray) -> Layered:
        """The measure of a finite model: a sample of its own in each of `depth` layers.

        **Arguments:** `depth` L ≥ 1, `width` M ≥ 1, a random `key`. **Raises:** `ValueError` if one is below 1.
        """
        at_least("depth", depth, 1)
        at_least("width", width, 1)
        return Layered(jax.vmap(lambda k: self.sample(k, width))(jax.random.split(key, depth)))

    def spectral(self, nodes: int, width: int, key: PRNGKeyArray, *, rule: Rule = "gauss") -> Spectral:
        """The measure of the limit: one sample, shared by all depth nodes, so that the flow stays smooth in depth.

        **Arguments:** `nodes` ≥ 1 (2 for `"lobatto"`), `width` M ≥ 1, a random `key`, the quadrature `rule`.
        **Raises:** `ValueError` if a count is too small or the rule unknown.
        """
        at_least("width", width, 1)
        quadrature(nodes, rule)
        shared = self.sample(key, width)
        return Spectral(jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (nodes, *leaf.shape)), shared), rule=rule)


class Gaussian(AbstractInitialLaw):
    r"""\( \rho_0 = N(0, s^2 I) \) over all coordinates of the encoder's particles.

    **Arguments:**

    - `encoder`: gives the particles their structure.
    - `scale`: the standard deviation s > 0 of every coordinate. Good values: 0.5 to 1.
    - `sampling`: how particles are placed: [`wgf.measures.Independent`][] (what the theorems speak of),
      [`wgf.measures.Sobol`][], or [`wgf.measures.SignPairs`][] around either.

    **Raises:** `ValueError` if the scale is not positive.

    **Source:** arXiv:2410.23610, section 2.3 (particles drawn independently from ρ₀).
    """

    encoder: AbstractEncoder
    scale: Array
    sampling: AbstractSampling

    def __init__(
        self,
        encoder: AbstractEncoder,
        scale: ArrayLike = 1.0,
        sampling: AbstractSampling = Independent(),  # noqa: B008 (an immutable module)
    ):
        self.encoder = encoder
        self.scale = _check_scale(scale)
        self.sampling = sampling

    def sample(self, key: PRNGKeyArray, width: int) -> PyTree[Array]:
        """Draw `width` particles."""
        return _scaled(self.scale, self.sampling(key, self.encoder, width))


class EncoderLaw(AbstractInitialLaw):
    """The law that the encoder's own `sample` draws from, times `scale`; independent particles.

    For encoders whose `sample` is not normal (uniform on a sphere, say).

    **Raises:** `ValueError` if the scale is not positive.
    """

    encoder: AbstractEncoder
    scale: Array

    def __init__(self, encoder: AbstractEncoder, scale: ArrayLike = 1.0):
        self.encoder = encoder
        self.scale = _check_scale(scale)

    def sample(self, key: PRNGKeyArray, width: int) -> PyTree[Array]:
        """Draw `width` particles by `encoder.sample`."""
        return _scaled(self.scale, self.encoder.sample(key, (width,)))


def _check_scale(scale: ArrayLike) -> Array:
    scale = jnp.asarray(scale, jnp.result_type(float))
    got = None if is_traced(scale) else scale.tolist()
    return holds(scale, jnp.all((scale > 0) & jnp.isfinite(scale)), "`scale` must be positive and finite", got)


def _scaled(scale: Array, particles: PyTree[Array]) -> PyTree[Array]:
    return jax.tree.map(lambda leaf: scale.astype(leaf.dtype) * leaf, particles)
