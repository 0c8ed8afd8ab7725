"""Sums over particles in tiles of prompts and particles that stay in a CPU's cache."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, PyTree

from .device_sums import Batch, Total, in_shares, shares_of

Block = Float[Array, "token_dim prompts length"]

# The most bytes of one array in a tile: the cores of a CPU share some megabytes of cache; a GPU has other limits.
_TILE, _TILE_ELSEWHERE = 2**22, 2**29


class Tile(NamedTuple):
    """What is computed for one tile of particles and prompts.

    - `sum_on_cpu`: maps arrays `[..., m]` of particles, and last tokens `[D, b, N+1]`, to the sum `[D, b, N+1]` over
      these m. Particles whose entries are all zero must contribute zero.
    - `sum_elsewhere`: the same for other backends.
    - `numbers`: the size of a tile's largest array per prompt and particle.
    - `most_particles`: the most particles m of a tile on a CPU.
    """

    sum_on_cpu: Callable[..., Block]
    sum_elsewhere: Callable[..., Block]
    numbers: int
    most_particles: int


def tiled_sum(tile: Tile, particles: tuple[Float[Array, "width ..."] | None, ...], tokens: Batch) -> Batch:
    r"""The sum over all particles, arrays `[M, ...]`, for all prompts `[B, D, N+1]`, tile by tile.

    The intermediate arrays of a tile stay in the cache. The backward pass computes them again, and needs only `tokens`
    and `particles`. On other backends than the CPU a tile takes up to half a gigabyte.
    """
    shares = shares_of(particles, tokens)
    width, batch = len(jax.tree.leaves(particles)[0]) // shares[0], len(tokens) // shares[1]
    facts = {"numbers": tile.numbers, "most_particles": tile.most_particles, "dtype": tokens.dtype}
    on_cpu, elsewhere = (tile_sizes(width, batch, cpu=cpu, **facts) for cpu in (True, False))
    total = by_platform(_sum_in_tiles, (tile.sum_on_cpu, *on_cpu), (tile.sum_elsewhere, *elsewhere))
    return in_shares(total, shares)(particles, tokens)


def _sum_in_tiles(tile: Callable[..., Block], m: int, b: int, particles: PyTree[Array], tokens: Batch) -> Batch:
    strips = jax.tree.map(lambda leaf: jnp.moveaxis(fold(leaf, 0, m), 0, -1), particles)
    blocks = fold(tokens, 0, b).transpose(1, 2, 0, 3)
    sums, _ = jax.lax.scan(over_blocks(tile, blocks), jnp.zeros_like(blocks), strips)
    return sums.transpose(2, 0, 1, 3).reshape(-1, *tokens.shape[1:])[: len(tokens)]


def by_platform(compute: Callable[..., Array], cpu: tuple[Any, ...], other: tuple[Any, ...]) -> Total:
    """The function `compute(*cpu, ...)` in a program for a CPU, `compute(*other, ...)` in one for another backend.

    If they differ, JAX traces both and lowers one. The backward pass computes everything again from the arguments;
    otherwise it would store the intermediate arrays of both.
    """
    on_cpu, elsewhere = functools.partial(compute, *cpu), functools.partial(compute, *other)
    if cpu == other:
        return on_cpu
    chosen = functools.partial(jax.lax.platform_dependent, cpu=on_cpu, default=elsewhere)
    return jax.checkpoint(chosen, prevent_cse=False)


def tile_sizes(
    width: int, batch: int, *, numbers: int, most_particles: int, dtype: DTypeLike, cpu: bool
) -> tuple[int, int]:
    """The numbers of particles and prompts in a tile: pieces of nearly equal size that on a CPU fit into the cache."""
    most = (_TILE if cpu else _TILE_ELSEWHERE) // (numbers * jnp.dtype(dtype).itemsize)
    m = piece(width, most_particles if cpu else max(1, most))
    return m, piece(batch, max(1, most // m))


def over_blocks(tile: Callable[..., Array], blocks: Float[Array, "blocks ..."]) -> Callable[..., Any]:
    """The body of a loop over strips of particles: it adds `tile(*strip, block)` for every block of prompts in turn."""
    # JAX hashes what it checkpoints. A partial function has a hash; a method of an encoder with arrays has none.
    remade = jax.checkpoint(functools.partial(tile), prevent_cse=False)

    def add(total: Float[Array, "blocks ..."], strip: tuple[PyTree[Array], ...]):
        return total + jax.lax.map(functools.partial(remade, *strip), blocks), None

    return add


def piece(size: int, most: int) -> int:
    """The size of nearly equal pieces of an axis, at most `most`; exactly equal ones if they are over half as long."""
    least = math.ceil(size / most)
    return next((size // count for count in range(least, 2 * least) if size % count == 0), math.ceil(size / least))


def fold(array: Array, axis: int, size: int, mode: str = "constant") -> Array:
    """Cut an axis into `[size, pieces]`, padded with zeros or (`mode="edge"`) with copies of its last entry.

    A piece takes every k-th entry. If the axis is spread over devices, each device has a share in every piece, and
    loops over pieces move no data between devices.
    """
    axis %= array.ndim
    pieces = math.ceil(array.shape[axis] / size)
    padding = [(0, 0)] * array.ndim
    padding[axis] = (0, size * pieces - array.shape[axis])
    return jnp.pad(array, padding, mode=mode).reshape(*array.shape[:axis], size, pieces, *array.shape[axis + 1 :])
