"""The Sinkhorn divergence of a finite model's particles from the limit's, with its noise floor."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from ..measures import AbstractMeasure, coordinates
from ..transport import Divergence, Excess, Potentials, conditional_divergence

# Points and weights; the widths of clouds that are compared differ, which `_` leaves open.
_Cloud = tuple[Float[Array, "depth _ dim"], Float[Array, "depth _"]]


def sinkhorn_excess(
    finite: AbstractMeasure,
    limit: AbstractMeasure,
    twins: AbstractMeasure | None,
    replicates: int | None,
    *,
    epsilon: Array,
    most_depths: int,
    initial: Potentials | None = None,
    mesh: Mesh | None = None,
) -> tuple[Excess, Float[Array, ""] | None, Potentials]:
    """The divergence and its floor at (at most) `most_depths` layers, and the noise of their difference if known.

    Beside them the potentials of both, which the next of a flow's times may have as `initial` to start from. The
    devices of a `mesh` share the layers.

    Three ways to come by a sample of the limit's law that is independent of the limit's particles: its tracers
    `twins`; each of its `replicates` in turn against the others; or, failing both, one part of the larger cloud.
    """
    depth = finite.weights.shape[0]
    chosen = np.unique(np.linspace(0, depth - 1, min(most_depths, depth)).round().astype(int))
    depth_weights = finite.depth_weights[chosen] / jnp.sum(finite.depth_weights[chosen])

    def divergence(cloud: _Cloud, other: _Cloud, initial: Potentials | None) -> Divergence:
        (x, a), (y, b) = cloud, other
        options = {"x_weights": a, "y_weights": b, "initial": initial, "mesh": mesh}
        return conditional_divergence(x, y, depth_weights, epsilon=epsilon, **options)

    def pair(cloud: _Cloud, floor: _Cloud, other: _Cloud, initial: Potentials | None) -> tuple[Excess, Potentials]:
        # Clouds of one size, one after the other: one program for both.
        clouds = jax.tree.map(lambda *each: jnp.stack(each), cloud, floor)
        both = jax.lax.map(lambda given: divergence(given[0], other, given[1]), (clouds, initial))
        excess = Excess(both.value[0], both.value[1], both.epsilon[0], jnp.all(both.converged))
        return excess, both.potentials

    x = coordinates(finite.particles)[chosen], finite.weights[chosen]
    law, weights = jax.vmap(limit.at)(finite.depths[chosen])
    y = coordinates(law), weights
    if twins is not None:
        floor = coordinates(twins.particles)[chosen], x[1]
        excess, found = pair(x, floor, y, initial)
        return excess, None, found
    if replicates is not None:
        return _over_replicates(pair, x, y, replicates, initial)
    excess, found = pair(*_split(x, y), initial)
    return excess, None, found


def _over_replicates(
    pair, x: _Cloud, y: _Cloud, replicates: int, initial: Potentials | None
) -> tuple[Excess, Float[Array, ""], Potentials]:
    """Means over the replicates, each left out of the limit's cloud in turn and serving as the sample of its law.

    The floors are then R draws of what the divergence would be, were the finite model's particles a sample of that law.
    """
    part = y[0].shape[1] // replicates
    count = min(x[0].shape[1], part)
    x = _part(x, slice(0, count))

    def leave_out(given):
        r, initial = given
        turned = jax.tree.map(lambda array: jnp.roll(array, -part * r, axis=1), y)
        rest = _part(turned, slice(part, None))
        return pair(x, _part(turned, slice(0, count)), rest, initial)

    each, found = jax.lax.map(leave_out, (jnp.arange(replicates), initial))
    noise = jnp.std(each.floor, ddof=1) * np.sqrt(1 + 1 / replicates)
    mean = Excess(jnp.mean(each.value), jnp.mean(each.floor), each.epsilon[0], jnp.all(each.converged))
    return mean, noise, found


def _split(first: _Cloud, second: _Cloud) -> tuple[_Cloud, _Cloud, _Cloud]:
    """Cut clouds to (x, x0, y): x0 and y disjoint parts of the larger one, x as many of the smaller as x0 has."""
    small, large = (first, second) if first[0].shape[1] <= second[0].shape[1] else (second, first)
    count = max(1, min(small[0].shape[1], large[0].shape[1] // 2))
    return _part(small, slice(0, count)), _part(large, slice(0, count)), _part(large, slice(count, None))


def _part(cloud: _Cloud, part: slice) -> _Cloud:
    points, weights = cloud[0][:, part], cloud[1][:, part]
    return points, weights / jnp.sum(weights, axis=1, keepdims=True)
