"""Sums over particles in tiles of prompts and particles that stay in a CPU's cache."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, PyTree

from .device_sums import Batch, sum_of_shares

# The most bytes of one array in a tile: the cores of a CPU share some megabytes of cache; a GPU has other limits.
_TILE, _TILE_ELSEWHERE = 2**22, 2**29


Tile = Callable[..., Float[Array, "token_dim prompts length"]]


def tiled_sum(
    tile: Tile,
    particles: PyTree[Float[Array, "..."]],
    tokens: Batch,
    *,
    numbers: int,
    most_particles: int,
    elsewhere: Tile | None = None,
) -> Batch:
    r"""The sum over all particles for all prompts, tile by tile.

    The intermediate arrays of a tile stay in the cache. The backward pass computes them again, and needs only `tokens`
    and `particles`. On other backends than the CPU a tile takes up to half a gigabyte.

    **Arguments:**

    - `tile`: maps tokens `[D, b, N+1]` and particles `[..., m]` to the sum `[D, b, N+1]` over these m. Particles whose
      entries are all zero must contribute zero.
    - `particles`: arrays `[M, ...]`.
    - `tokens`: `[B, D, N+1]`.
    - `numbers`: the size of a tile's largest array per prompt and particle.
    - `most_particles`: the most particles m of a tile on a CPU.
    - `elsewhere`: the function in place of `tile` on other backends; default None: `tile`.
    """

    def sums(tile, sizes, particles, tokens):
        m, b = sizes
        strips = jax.tree.map(lambda leaf: jnp.moveaxis(fold(leaf, 0, m), 0, -1), particles)
        blocks = fold(tokens, 0, b).transpose(1, 2, 0, 3)
        sums = sum_of_tiles(tile, strips, blocks)
        return sums.transpose(2, 0, 1, 3).reshape(-1, *tokens.shape[1:])[: len(tokens)]

    def total(particles, tokens):
        batch, width = tokens.shape[0], jax.tree.leaves(particles)[0].shape[0]
        facts = {"numbers": numbers, "most_particles": most_particles, "dtype": tokens.dtype}
        on_cpu, other = (tile_sizes(width, batch, cpu=cpu, **facts) for cpu in (True, False))
        return by_platform(sums, (tile, on_cpu), (elsewhere or tile, other), particles, tokens)

    return sum_of_shares(total, particles, tokens)


def by_platform(compute: Callable[..., Array], cpu: tuple[Any, ...], other: tuple[Any, ...], *args: Any) -> Array:
    """`compute(*cpu, *args)` in a program for a CPU, `compute(*other, *args)` in one for another backend.

    If they differ, JAX traces both and lowers one. The backward pass computes everything again from `args`; otherwise
    it would store the intermediate arrays of both.
    """
    if cpu == other:
        return compute(*cpu, *args)

    def chosen(*args):
        ways = (functools.partial(compute, *facts) for facts in (cpu, other))
        return jax.lax.platform_dependent(*args, cpu=next(ways), default=next(ways))

    return jax.checkpoint(chosen, prevent_cse=False)(*args)


def tile_sizes(
    width: int, batch: int, *, numbers: int, most_particles: int, dtype: DTypeLike, cpu: bool
) -> tuple[int, int]:
    """The numbers of particles and prompts in a tile: pieces of nearly equal size that on a CPU fit into the cache."""
    most = (_TILE if cpu else _TILE_ELSEWHERE) // (numbers * jnp.dtype(dtype).itemsize)
    m = piece(width, most_particles if cpu else max(1, most))
    return m, piece(batch, max(1, most // m))


def sum_of_tiles(
    tile: Callable[[Array, PyTree[Array]], Array], strips: PyTree[Array], blocks: Float[Array, "blocks ..."]
) -> Float[Array, "blocks ..."]:
    """For every block of prompts, the sum of `tile(block, strip)` over strips of particles, one tile at a time."""

    # A plain function, since JAX hashes what it checkpoints; `tile` may be a method of an encoder with arrays.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def remade(block, strip):
        return tile(block, strip)

    def add(total, strip):
        return total + jax.lax.map(lambda block: remade(block, strip), blocks), None

    return jax.lax.scan(add, jnp.zeros_like(blocks), strips)[0]


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
