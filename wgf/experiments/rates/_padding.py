"""Finite models of several sizes, padded to one shape, so that one compiled program computes all of them."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ...encoders import Average
from ...measures import Gaussian
from ...models import Transformer
from .._grouping import Size


class PaddedModels(NamedTuple):
    """Finite models of several sizes and all seeds, in the shape of the largest size.

    All arrays have the leading axis `[sizes · seeds]`.
    """

    sizes: tuple[Size, ...]
    models: Transformer

    def split(self, arrays: PyTree) -> dict[Size, PyTree]:
        """Split arrays of all models by size: `[seeds]` each."""
        seeds = self.models.measure.weights.shape[0] // len(self.sizes)
        host = jax.tree.map(np.asarray, arrays)
        parts = {size: slice(number * seeds, (number + 1) * seeds) for number, size in enumerate(self.sizes)}
        return {size: jax.tree.map(lambda x, part=part: x[part], host) for size, part in parts.items()}

    def unpad(self, particles: PyTree[Array]) -> dict[Size, PyTree[np.ndarray]]:
        """The particles of each size without the padding, `[seeds, L, M, ...]`."""
        return {
            size: jax.tree.map(lambda leaf, size=size: leaf[:, : size[0], : size[1]], found)
            for size, found in self.split(particles).items()
        }

    def __str__(self) -> str:
        return ", ".join(f"{depth} x {width}" for depth, width in self.sizes)


def draw_padded(encoder: Average, scale: float, sizes: tuple[Size, ...], seeds: int, key: PRNGKeyArray) -> PaddedModels:
    """Draw finite models from ρ₀, independently for every size and seed. The first size must be the largest.

    A model of L layers and M particles is the corner `[:L, :M]` of the shape, as in `wgf.models._padding`.
    """
    depth, width = sizes[0]
    law = Gaussian(encoder, scale)

    def draw(size, key):
        measure = law.layered(depth, width, key)
        own = (jnp.arange(depth)[:, None] < size[0]) & (jnp.arange(width) < size[1])[None]
        weights = jnp.where(own, depth / (size[0] * size[1]), 0).astype(measure.weights.dtype)
        model = Transformer(encoder, eqx.tree_at(lambda m: m.weights, measure, weights))
        return eqx.tree_at(lambda m: m.layers, model, size[0], is_leaf=lambda leaf: leaf is None)

    each = jnp.repeat(jnp.array(sizes), seeds, axis=0)
    return PaddedModels(sizes, eqx.filter_jit(eqx.filter_vmap(draw))(each, jax.random.split(key, len(each))))
