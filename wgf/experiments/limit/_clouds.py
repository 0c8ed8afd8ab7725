"""The particles of the models that `wgf limit` saves and draws."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...measures import AbstractMeasure, coordinates


@eqx.filter_jit
def final_particles(limit: AbstractMeasure, *finite: AbstractMeasure) -> tuple[Array, ...]:
    """The limit's depths, and the coordinates of the limit's and of each finite model's particles at the last save."""
    last = [_saved(measure, -1) for measure in (limit, *finite)]
    return last[0].depths, *(coordinates(measure.particles) for measure in last)


@eqx.filter_jit
def mean_squared_moves(measure: AbstractMeasure) -> Array:
    """The mean square of each coordinate's move from the first save to the last."""
    start, end = (coordinates(_saved(measure, save).particles) for save in (0, -1))
    return jnp.mean((end - start) ** 2, axis=(0, 1))


@eqx.filter_jit
def clouds_at(limit: AbstractMeasure, finite: AbstractMeasure, depths: tuple[float, ...]) -> list[list[Array]]:
    """The coordinates of both measures' particles at the last save, at each depth."""

    def cloud(measure, depth):
        particles, _ = _saved(measure, -1).at(depth)
        return coordinates(jax.tree.map(lambda leaf: leaf[None], particles))[0]

    return [[cloud(measure, depth) for measure in (limit, finite)] for depth in depths]


def _saved(measure: AbstractMeasure, save: int) -> AbstractMeasure:
    return jax.tree.map(lambda leaf: leaf[save], measure)
