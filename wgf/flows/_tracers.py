"""Tracers of all measures, in strips of one width, so that one loop moves them all."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..measures import Layered, at_coordinates, coordinates


def strips(tracers: Sequence[PyTree[Array]]) -> Float[Array, "strips width dim"]:
    """Cut the layers `[depth, width]` of particles into strips of one width; the last one is padded with its end.

    A strip takes every k-th particle of its layer. If these are spread over devices, each device has a share in every
    strip.
    """
    clouds = [coordinates(particles) for particles in tracers]
    width = strip_width([cloud.shape[:2] for cloud in clouds])

    def cut(cloud):
        count = math.ceil(cloud.shape[1] / width)
        filled = jnp.pad(cloud, ((0, 0), (0, count * width - cloud.shape[1]), (0, 0)), mode="edge")
        strips = filled.reshape(len(cloud), width, count, -1).swapaxes(1, 2)
        return strips.reshape(-1, width, cloud.shape[2])

    return jnp.concatenate([cut(cloud) for cloud in clouds])


def strip_depths(measures: Sequence[Layered]) -> Float[Array, " strips"]:
    """The depth of each strip."""
    width = strip_width([measure.weights.shape for measure in measures])

    def repeated(measure):
        layers, whole = measure.weights.shape
        return jnp.broadcast_to(measure.depths[:, None], (layers, math.ceil(whole / width))).ravel()

    return jnp.concatenate([repeated(measure) for measure in measures])


def joined(strips: Float[Array, "strips width dim"], measures: Sequence[Layered]) -> tuple[PyTree[Array], ...]:
    """The particles of each measure; the inverse of `strips`."""
    width = strips.shape[1]
    counts = [math.ceil(measure.weights.shape[1] / width) for measure in measures]
    ends = np.cumsum([count * len(measure.depths) for count, measure in zip(counts, measures, strict=True)])

    def join(rows, count, measure):
        layers, whole = measure.weights.shape
        cloud = rows.reshape(layers, count, width, -1).swapaxes(1, 2).reshape(layers, count * width, -1)[:, :whole]
        return at_coordinates(cloud, measure.particles)

    return tuple(map(join, jnp.split(strips, ends[:-1]), counts, measures))


def strip_width(shapes: Sequence[tuple[int, ...]]) -> int:
    """The width of strips for layers of these depths and widths. Narrow strips waste little; wide strips are few."""

    def cost(width: int) -> int:
        # Each iteration of the loop has a fixed cost, taken as that of 32 tracers.
        return sum(depth * math.ceil(whole / width) for depth, whole in shapes) * (width + 32)

    return min((whole for _, whole in shapes), key=cost)
