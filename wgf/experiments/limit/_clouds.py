"""The particles of the models that `wgf limit` saves and draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...flows import FlowSolution
from ...measures import AbstractMeasure, coordinate_names, coordinates

DRAWN_DEPTHS = (0.0, 0.999)


@dataclass(frozen=True)
class Clouds:
    """The coordinates of the particles at the last τ, in the PDE and in the finite models.

    - `names`: of the coordinates.
    - `depths`: the stage times of the PDE; `limit`: its particles at each, `[depth, particle, coordinate]`.
    - `finite`: those of each finite model, `[layer, particle, coordinate]`.
    - `moves`: the mean square of each coordinate's move under the PDE's flow.
    - `drawn`: at each of `DRAWN_DEPTHS`, those of the PDE and of the largest finite model.
    """

    names: tuple[str, ...]
    depths: Float[np.ndarray, " depth"]
    limit: Float[np.ndarray, "depth particle coordinate"]
    finite: tuple[Float[np.ndarray, "_ _ coordinate"], ...]
    moves: Float[np.ndarray, " coordinate"]
    drawn: tuple[tuple[Float[np.ndarray, "_ coordinate"], Float[np.ndarray, "_ coordinate"]], ...]


def clouds_of(limit: FlowSolution, finite: Sequence[FlowSolution], largest: FlowSolution) -> Clouds:
    """The clouds of the PDE's flow, of all finite flows, and of the largest one to be drawn."""
    measure, measures = limit.models.measure, [solution.models.measure for solution in finite]
    depths, particles, *others = jax.tree.map(np.asarray, _final_particles(measure, *measures))
    drawn = jax.tree.map(np.asarray, _clouds_at(measure, largest.models.measure, DRAWN_DEPTHS))
    moves = np.asarray(_mean_squared_moves(measure))
    names = tuple(coordinate_names(limit.models.encoder))
    return Clouds(names, depths, particles, tuple(others), moves, tuple(map(tuple, drawn)))


@eqx.filter_jit
def _final_particles(limit: AbstractMeasure, *finite: AbstractMeasure) -> tuple[Array, ...]:
    """The limit's depths, and the coordinates of the limit's and of each finite model's particles at the last save."""
    last = [_saved(measure, -1) for measure in (limit, *finite)]
    return last[0].depths, *(coordinates(measure.particles) for measure in last)


@eqx.filter_jit
def _mean_squared_moves(measure: AbstractMeasure) -> Array:
    """The mean square of each coordinate's move from the first save to the last."""
    start, end = (coordinates(_saved(measure, save).particles) for save in (0, -1))
    return jnp.mean((end - start) ** 2, axis=(0, 1))


@eqx.filter_jit
def _clouds_at(limit: AbstractMeasure, finite: AbstractMeasure, depths: tuple[float, ...]) -> list[list[Array]]:
    """The coordinates of both measures' particles at the last save, at each depth."""

    def cloud(measure, depth):
        particles, _ = _saved(measure, -1).at(depth)
        return coordinates(jax.tree.map(lambda leaf: leaf[None], particles))[0]

    return [[cloud(measure, depth) for measure in (limit, finite)] for depth in depths]


def _saved(measure: AbstractMeasure, save: int) -> AbstractMeasure:
    return jax.tree.map(lambda leaf: leaf[save], measure)
