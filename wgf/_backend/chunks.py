"""Means over particles in chunks of prompts and particles, in memory that does not grow with either."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .device_sums import Batch, sum_of_shares
from .tiles import by_platform, fold, piece, sum_of_tiles, tile_sizes

Mean = Callable[[PyTree[Array], Float[Array, " width"], Batch], Batch]

# Between too small for the processor and too large for its cache: measured for plain attention heads.
_MOST_PARTICLES = 64


def mean_in_chunks(
    mean: Mean,
    particles: PyTree[Array],
    weights: Float[Array, " width"],
    tokens: Batch,
    *,
    most_particles: int | None = None,
    most_prompts: int | None = None,
) -> Batch:
    """Compute `mean(particles, weights, tokens)` in chunks of particles and of prompts.

    The backward pass computes each chunk again, and needs only the arguments. Incomplete chunks are padded with copies
    of weight zero of the last particle and prompt, at which every encoder is defined.

    **Arguments:**

    - `mean`: linear in `weights`; treats each prompt independently.
    - `most_particles`, `most_prompts`: the most of each in a chunk. None: chosen so that on a CPU the arrays of a chunk
      fit into the cache.
    """

    def sizes(width: int, tokens: Batch, cpu: bool) -> tuple[int, int]:
        batch, dim, length = tokens.shape
        facts = {"most_particles": most_particles or _MOST_PARTICLES, "dtype": tokens.dtype, "cpu": cpu}
        m, b = tile_sizes(width, batch, numbers=dim * length, **facts)
        m = m if most_particles is None else piece(width, most_particles)
        return m, b if most_prompts is None else piece(batch, most_prompts)

    def sums(m, b, particles, weights, tokens):
        (batch, dim, length), width = tokens.shape, weights.shape[0]
        if (m, b) == (width, batch):
            return mean(particles, weights, tokens)
        strips = jax.tree.map(lambda leaf: jnp.moveaxis(fold(leaf, 0, m, "edge"), 1, 0), particles)
        strips = strips, fold(weights, 0, m).T
        blocks = jnp.moveaxis(fold(tokens, 0, b, "edge"), 1, 0)
        sums = sum_of_tiles(lambda block, strip: mean(strip[0], strip[1], block), strips, blocks)
        return jnp.moveaxis(sums, 0, 1).reshape(-1, dim, length)[:batch]

    def total(laws, tokens):
        particles, weights = laws
        ways = (sizes(weights.shape[0], tokens, cpu) for cpu in (True, False))
        return by_platform(sums, *ways, particles, weights, tokens)

    return sum_of_shares(total, (particles, weights), tokens)
