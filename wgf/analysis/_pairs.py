"""Distances between the laws of two flows, from pairs of particles with the same starts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, PyTree

from .._backend.compat import is_traced
from .._backend.precision import Module
from .._checks import on_host
from .._display.spread import evenly_spread
from ..measures import AbstractMeasure, Layered, coordinates
from ..models import AbstractModel
from ..transport import conditional_divergence, gelbrich_distance
from ._potentials import carry_potentials

# Rounding rules the divergence of near clouds before this error of the marginals does.
_THRESHOLD = 1e-4


class Distances(Module):
    r"""Distances between the laws of two flows at each saved τ, `[saves]` each, in the units of the particles.

    Each pair of particles starts at one point. One moves in the finite model's field, the other in the limit's, so the
    noise of the sample is in both clouds and cancels.

    - `gelbrich`: the distance of means and covariances ([`wgf.transport.gelbrich_distance`][]), a lower bound of the
      conditional W₂ of the two clouds.
    - `coupling`: the root mean square distance of the pairs, an upper bound of it.
    - `sinkhorn`: \( \sqrt{S_\varepsilon} \) of the two clouds, which tends to W₂ as ε → 0. A larger ε sees less of what
      differs at short distances.
    - `epsilon`: ε of `sinkhorn`.
    - `converged`: whether `sinkhorn` is reliable.
    """

    gelbrich: Float[Array, "*saves"]
    sinkhorn: Float[Array, "*saves"]
    coupling: Float[Array, "*saves"]
    epsilon: Float[Array, "*saves"]
    converged: Bool[Array, "*saves"]


class Pairs(Module):
    """Two measures along a flow, at the same depths, whose particles correspond. Arrays have a leading axis `[saves]`.

    - `own`, `other`: particles that move in the finite model's field and in the limit's.
    """

    own: AbstractMeasure
    other: AbstractMeasure

    @eqx.filter_jit
    def distances(self, epsilon: Array, most_depths: int, mesh: Mesh | None = None) -> Distances:
        """The distances at each τ. Divergences are computed at no more than `most_depths` depths, on a `mesh`."""

        def at_tau(initial, pair):
            x, y = coordinates(pair.own.particles), coordinates(pair.other.particles)
            weights, depth_weights = pair.own.weights, pair.own.depth_weights

            def over_depth(squares):
                return jnp.sqrt(jnp.sum(depth_weights * squares))

            chosen = evenly_spread(len(x), most_depths)
            divergence = conditional_divergence(
                x[chosen],
                y[chosen],
                depth_weights[chosen] / jnp.sum(depth_weights[chosen]),
                epsilon=epsilon,
                x_weights=weights[chosen],
                y_weights=weights[chosen],
                threshold=_THRESHOLD,
                initial=initial,
                mesh=mesh,
            )
            # One depth after another: batched decompositions on several devices of a CPU can wait for ever.
            gelbrich = jax.lax.map(_gelbrich, (x, y, weights))
            coupling = over_depth(jnp.sum(weights * jnp.sum((x - y) ** 2, axis=-1), axis=1))
            # Rounding must not part equal clouds, nor order the bounds wrongly.
            return divergence.potentials, Distances(
                gelbrich=jnp.minimum(over_depth(gelbrich**2), coupling),
                sinkhorn=jnp.where(coupling > 0, jnp.sqrt(jnp.maximum(divergence.value, 0)), 0),
                coupling=coupling,
                epsilon=divergence.epsilon,
                converged=divergence.converged,
            )

        return carry_potentials(at_tau, self)


def _gelbrich(clouds: tuple[Array, Array, Array]) -> Float[Array, ""]:
    x, y, weights = clouds
    return gelbrich_distance(x, y, x_weights=weights, y_weights=weights)


def onto(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """The tree with its arrays on all devices of a mesh: a program on a mesh takes no arrays from other devices."""
    if mesh is None:
        return tree
    arrays, static = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.device_put(arrays, NamedSharding(mesh, PartitionSpec())), static)


def pairs_of(finite: AbstractModel, limit: AbstractModel) -> Pairs | None:
    """The particles of two flows that correspond; None if there are none.

    They are tracers that both flows carry, or the finite model's own particles and the limit's tracers of them.

    **Raises:** `ValueError` if tracers of both flows have one shape but other starts.
    """
    for own in finite.tracers:
        if (other := _with_starts_of(own, limit.tracers)) is not None:
            return Pairs(own, other)
    shapes = {measure.weights.shape for measure in finite.tracers}
    if strangers := [shape for shape in shapes if shape in {measure.weights.shape for measure in limit.tracers}]:
        raise ValueError(
            "`finite` and `limit` must carry the same tracers; got tracers of depth and width "
            f"{strangers[0][1:]} with different starts. Pass one measure to both `with_tracers`."
        )
    other = own_tracers(finite, limit)
    return None if other is None else Pairs(finite.measure, other)


def own_tracers(finite: AbstractModel, limit: AbstractModel) -> Layered | None:
    """The limit's tracers of the finite model's own particles; None if it carries none."""
    return _with_starts_of(finite.measure, limit.tracers)


def _with_starts_of(measure: AbstractMeasure, tracers: tuple[Layered, ...]) -> Layered | None:
    """The first of the tracers with the shape and the starts of a measure; None if there are none.

    Traced starts, as under `jit`, count as equal.
    """
    alike = (other for other in tracers if other.weights.shape == measure.weights.shape)
    return next((other for other in alike if _same_starts(measure, other)), None)


def _same_starts(first: AbstractMeasure, second: AbstractMeasure) -> bool:
    starts = [on_host(coordinates(jax.tree.map(lambda leaf: leaf[0], m.particles))) for m in (first, second)]
    known = not is_traced(*starts) and all(isinstance(start, np.ndarray) for start in starts)
    return not known or np.array_equal(*starts)
