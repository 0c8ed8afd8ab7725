"""Means over particles in chunks of prompts and particles, in memory that does not grow with either."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .device_sums import Batch, in_shares, shares_of
from .tiles import by_platform, fold, over_blocks, piece, tile_sizes

Mean = Callable[[PyTree[Array], Float[Array, " width"], Batch], Batch]
Law = tuple[PyTree[Array], Float[Array, " width"]]

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
    shares = shares_of(particles, tokens)
    width, batch = len(weights) // shares[0], len(tokens) // shares[1]
    facts = {"numbers": math.prod(tokens.shape[1:]), "dtype": tokens.dtype}

    def sizes(cpu: bool) -> tuple[int, int]:
        m, b = tile_sizes(width, batch, most_particles=most_particles or _MOST_PARTICLES, cpu=cpu, **facts)
        m = m if most_particles is None else piece(width, most_particles)
        return m, b if most_prompts is None else piece(batch, most_prompts)

    total = by_platform(_mean_in_chunks, (mean, *sizes(cpu=True)), (mean, *sizes(cpu=False)))
    return in_shares(total, shares)((particles, weights), tokens)


def _mean_in_chunks(mean: Mean, m: int, b: int, law: Law, tokens: Batch) -> Batch:
    particles, weights = law
    if (m, b) == (len(weights), len(tokens)):
        return mean(particles, weights, tokens)
    strips = jax.tree.map(lambda leaf: jnp.moveaxis(fold(leaf, 0, m, "edge"), 1, 0), particles), fold(weights, 0, m).T
    blocks = jnp.moveaxis(fold(tokens, 0, b, "edge"), 1, 0)
    sums, _ = jax.lax.scan(over_blocks(mean, blocks), jnp.zeros_like(blocks), strips)
    return jnp.moveaxis(sums, 0, 1).reshape(-1, *tokens.shape[1:])[: len(tokens)]
