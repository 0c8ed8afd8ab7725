"""The finite model's measure: constant in depth over each layer."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from .._depth import check_depth, one_depth
from ._base import AbstractMeasure, check_particles, check_weights


class Layered(AbstractMeasure):
    r"""The measure of a finite Transformer: layer ℓ holds its particles on \( t \in [\ell/L, (\ell+1)/L) \).

    **Arguments:**

    - `particles`: arrays with leading axes `[L, M]`.
    - `weights`: `[L, M]` or `[M]`, not negative, with sum 1 over M; default 1/M. A particle of weight zero is a tracer.

    **Raises:** `ValueError` naming the argument if shapes do not fit or numbers are not finite.

    **Source:** arXiv:2410.23610, the particles of equation 2.5.
    """

    particles: PyTree[Array]
    weights: Float[Array, "depth width"]

    def __init__(self, particles: PyTree[ArrayLike], weights: ArrayLike | None = None):
        self.particles, _ = check_particles(particles, "[depth, width]")
        self.weights = check_weights(weights, self.particles)

    @property
    def depths(self) -> Float[Array, " depth"]:
        """The depths ℓ/L at which the layers begin."""
        layers = self.weights.shape[0]
        return jnp.arange(layers, dtype=self.weights.dtype) / layers

    @property
    def depth_weights(self) -> Float[Array, " depth"]:
        """The weight 1/L of every layer."""
        layers = self.weights.shape[0]
        return jnp.full(layers, 1 / layers, self.weights.dtype)

    def at(self, depth: ArrayLike) -> tuple[PyTree[Array], Float[Array, " width"]]:
        """The particles and weights of the layer that holds t; t = 1 belongs to the last layer."""
        layer = self.layer(one_depth("depth", depth))
        return jax.tree.map(lambda leaf: leaf[layer], self.particles), self.weights[layer]

    def layer(self, depth: ArrayLike) -> Array:
        """The index of the layer that holds depth t."""
        return layer_at(depth, self.weights.shape[0], self.weights.dtype)


def layer_at(depth: ArrayLike, layers: int | Int[Array, ""], dtype: DTypeLike) -> Array:
    """The index of the layer that holds depth t, of `layers` equal layers whose depths have this type."""
    # A depth computed as l/L may be rounded to just below it, and must still select layer l.
    count = jnp.asarray(layers, dtype)
    place = count * (check_depth("depth", depth) + 8 * jnp.finfo(dtype).eps)
    return jnp.clip(jnp.floor(place), 0, count - 1).astype(int)
