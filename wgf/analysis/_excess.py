"""The Sinkhorn divergence of a finite model's particles from the limit's particles, with its noise floor."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, ArrayLike, Float, Int

from .._backend.precision import Module
from .._display.spread import evenly_spread
from ..measures import AbstractMeasure, coordinates
from ..transport import Divergence, Excess, Potentials, conditional_divergence

# Points and weights. `_` leaves the width open, because the compared clouds differ in width.
_Cloud = tuple[Float[Array, "depth _ dim"], Float[Array, "depth _"]]
# The least sizes of padded clouds: few points compared with the limit's, and the default of `most_depths`.
_NARROW, _SHALLOW = 128, 8


class Clouds(Module):
    """A finite model's clouds, padded to a shape that models of many sizes share: one program compares them all.

    - `depths`, `depth_weights`: of the compared layers, padded with depths of weight zero.
    - `own`: the model's particles, padded with points of weight zero.
    - `count`: the number of particles at each depth, without padding.
    - `tracers`: the limit's tracers of these particles, if it carries any.
    """

    depths: Float[Array, " depth"]
    depth_weights: Float[Array, " depth"]
    own: _Cloud
    count: Int[Array, ""]
    tracers: _Cloud | None


def fill_clouds(
    finite: AbstractMeasure, tracers: AbstractMeasure | None, *, limit_width: int, most_depths: int
) -> Clouds:
    """The clouds of at most `most_depths` layers, for a limit of `limit_width` particles at each depth."""
    depth, width = finite.weights.shape
    chosen = evenly_spread(depth, most_depths)
    missing = (0, min(_round_up(len(chosen), _SHALLOW), most_depths) - len(chosen))
    # Padding never exceeds the limit's width, so padded kernels are no larger than the kernel of the limit's cloud.
    # Above the least width, padding at most doubles a cloud.
    filled = max(width, min(_round_up(width, _NARROW), limit_width))

    def fill(measure: AbstractMeasure) -> _Cloud:
        points, weights = _take((coordinates(measure.particles)[chosen], measure.weights[chosen]), 0, width, filled)
        # At the padding depths all points coincide, so there is nothing to solve.
        return jnp.pad(points, (missing, (0, 0), (0, 0))), jnp.pad(weights, (missing, (0, 0)), "edge")

    depth_weights = finite.depth_weights[chosen] / jnp.sum(finite.depth_weights[chosen])
    return Clouds(
        depths=jnp.pad(finite.depths[chosen], missing, "edge"),
        depth_weights=jnp.pad(depth_weights, missing),
        own=fill(finite),
        count=jnp.asarray(width),
        tracers=None if tracers is None else fill(tracers),
    )


def _round_up(count: int, least: int) -> int:
    """The next power of two, or `least` if that is larger."""
    return max(least, 1 << (count - 1).bit_length())


def sinkhorn_excess(
    clouds: Clouds,
    limit: AbstractMeasure,
    replicates: int | None,
    *,
    epsilon: Array,
    initial: Potentials | None = None,
    mesh: Mesh | None = None,
) -> tuple[Potentials, Excess]:
    """The potentials of the divergence and of its noise floor, and both values.

    The potentials can serve as `initial` at the next τ of a flow. The devices of a `mesh` share the layers.

    The floor needs a sample of the limit's law that is independent of the limit's particles. That sample is the limit's
    tracers; or each of its `replicates` in turn, against the others; or, without either, a part of the larger cloud.
    """

    def divergence(cloud: _Cloud, other: _Cloud, initial: Potentials | None) -> Divergence:
        (x, a), (y, b) = cloud, other
        options = {"x_weights": a, "y_weights": b, "initial": initial, "mesh": mesh}
        return conditional_divergence(x, y, clouds.depth_weights, epsilon=epsilon, **options)

    def pair(cloud: _Cloud, floor: _Cloud, other: _Cloud, initial: Potentials | None) -> tuple[Potentials, Excess]:
        # Both clouds have one size, so one program solves them one after the other.
        both = jax.tree.map(lambda *each: jnp.stack(each), cloud, floor)
        both = jax.lax.map(lambda given: divergence(given[0], other, given[1]), (both, initial))
        return both.potentials, Excess(both.value[0], both.value[1], both.epsilon[0], jnp.all(both.converged))

    law, weights = jax.vmap(limit.at)(clouds.depths)
    y = jnp.where(clouds.depth_weights[:, None, None] == 0, 0, coordinates(law)), weights
    if clouds.tracers is not None:
        return pair(clouds.own, clouds.tracers, y, initial)
    if replicates is not None:
        return _over_replicates(pair, clouds, y, replicates, initial)
    return pair(*_split(clouds, y), initial)


def _over_replicates(
    pair, clouds: Clouds, y: _Cloud, replicates: int, initial: Potentials | None
) -> tuple[Potentials, Excess]:
    """Means over the replicates. Each in turn is left out of the limit's cloud and is the sample of the limit's law.

    The floors are then R draws of the divergence of a finite model whose particles are a sample of that law.
    """
    whole = y[0].shape[1]
    part = whole // replicates
    count, width = jnp.minimum(clouds.count, part), min(clouds.own[0].shape[1], part)
    x = _part(clouds.own, 0, count, width)

    def leave_out(given):
        r, initial = given
        rest = _part(y, part * (r + 1), whole - part, whole - part)
        return pair(x, _part(y, part * r, count, width), rest, initial)

    found, each = jax.lax.map(leave_out, (jnp.arange(replicates), initial))
    return found, Excess(jnp.mean(each.value), jnp.mean(each.floor), each.epsilon[0], jnp.all(each.converged))


def _split(clouds: Clouds, y: _Cloud) -> tuple[_Cloud, _Cloud, _Cloud]:
    """Cut clouds to (x, x0, y): disjoint parts x0, y of the larger, and a part x of the smaller, of the size of x0."""
    small, large, most = clouds.own, y, clouds.count
    if small[0].shape[1] > large[0].shape[1]:
        # A model wider than the limit has no padding.
        small, large, most = y, clouds.own, y[0].shape[1]
    whole = large[0].shape[1]
    half = max(1, whole // 2)
    count, width = jnp.minimum(most, half), min(small[0].shape[1], half)
    first, floor = (_part(cloud, 0, count, width) for cloud in (small, large))
    return first, floor, _part(large, count, whole - count, whole)


def _part(cloud: _Cloud, start: ArrayLike, count: ArrayLike, width: int) -> _Cloud:
    """A part of a cloud, with its weights scaled to sum 1."""
    points, weights = _take(cloud, start, count, width)
    return points, weights / jnp.sum(weights, axis=1, keepdims=True)


def _take(cloud: _Cloud, start: ArrayLike, count: ArrayLike, width: int) -> _Cloud:
    """Take `count` points from `start` on, cyclically, and pad them to `width` with points of weight zero.

    The padding points coincide with the first point taken and so have its potentials. The iterations are then the same
    as without padding.
    """
    place = jnp.arange(width)
    index = (start + jnp.where(place < count, place, 0)) % cloud[0].shape[1]
    return cloud[0][:, index], jnp.where(place < count, cloud[1][:, index], 0)
