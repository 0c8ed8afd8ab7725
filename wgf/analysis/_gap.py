"""The gap between a finite model's flow and the limit's."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._checks import at_least
from ..flows import FlowSolution
from ..measures import AbstractMeasure, Eulerian, coordinates
from ..models import AbstractModel
from ..transport import (
    Excess,
    conditional_divergence,
    coupling_distance,
    epsilon_from_scale,
)


class Gap(eqx.Module):
    r"""How far a finite model is from the limit at each saved τ.

    - `taus`: `[saves]`.
    - `objective`, `risk`: finite minus limit, `[saves]`.
    - `output`: the root mean square over prompts of the difference of outputs, `[saves]`.
    - `sinkhorn`: [`wgf.transport.Excess`][] of the particle clouds, integrated over depth, `[saves]` each: value, noise
      floor, ε and whether the iterations converged. A squared distance.
    - `coupling`: the mean squared distance of the finite model's particles from their own tracers, `[saves]`; None
      where the limit carries no tracers of that model.
    """

    taus: Float[Array, " saves"]
    objective: Float[Array, " saves"]
    risk: Float[Array, " saves"]
    output: Float[Array, " saves"]
    sinkhorn: Excess
    coupling: Float[Array, " saves"] | None


def gap(
    finite: FlowSolution,
    limit: FlowSolution,
    *,
    epsilon: ArrayLike | None = None,
    most_depths: int = 8,
) -> Gap:
    r"""Compare two flows at the same training times.

    The particle clouds are compared depth by depth at (at most `most_depths` of) the finite model's layers. The noise
    floor is the divergence of two independent samples of the limit's law, of the sizes of the clouds compared: the
    limit's tracers of that model against its particles where there are tracers (they started as the finite model
    did, and moved by the limit's field), else two disjoint parts of the larger cloud, and then the clouds are cut to
    those sizes too.

    **Arguments:**

    - `finite`: the flow of the finite model.
    - `limit`: the flow of the limit, at the same `taus`; made from a model `with_tracers(...)` it gives the coupling
      distance as well.
    - `epsilon`: ε of the Sinkhorn divergence; default [`wgf.transport.epsilon_from_scale`][] of the limit's initial
      cloud.
    - `most_depths`: the most layers whose clouds are compared, evenly spread.

    **Returns:** [`wgf.analysis.Gap`][].

    **Raises:** `ValueError` if the times or the prompts differ, tracers of the same shape make the match ambiguous, or
    a limit on a grid has no tracers.

    Cost: for each τ and depth two Sinkhorn divergences of M against M' points.

    **Source:** arXiv:2410.23610, section 3; arXiv:2403.12887 for the distance.
    """
    if finite.taus.shape != limit.taus.shape or not np.array_equal(finite.taus, limit.taus):
        raise ValueError(f"`limit` must be solved at the taus of `finite`, {finite.taus}; got {limit.taus}.")
    if finite.outputs.shape != limit.outputs.shape:
        raise ValueError(
            f"`limit` must have outputs on the prompts of `finite`, {finite.outputs.shape}; got {limit.outputs.shape}."
        )
    at_least("most_depths", most_depths, 1)
    tracers = _match(finite.models, limit.models)
    if tracers is None and isinstance(limit.models.measure, Eulerian):
        raise ValueError("`limit` must carry the finite model's tracers where its measure is on a grid: no sample is.")
    if epsilon is None:
        epsilon = epsilon_from_scale(coordinates(limit.model_at(0).measure.particles)[0])
    sinkhorn, coupling = _distances(finite.models, limit.models, tracers, jnp.asarray(epsilon), most_depths)
    squares = (finite.outputs - limit.outputs) ** 2
    mean = jnp.sum(finite.prompt_weights * squares.reshape(*squares.shape[:2], -1).sum(axis=2), axis=1)
    return Gap(
        taus=finite.taus,
        objective=finite.objective - limit.objective,
        risk=finite.risk - limit.risk,
        output=jnp.sqrt(mean),
        sinkhorn=sinkhorn,
        coupling=coupling,
    )


def _match(finite: AbstractModel, limit: AbstractModel) -> int | None:
    """The index of the limit's tracers that have the finite model's depth and width."""
    shape = finite.measure.weights.shape
    matches = [i for i, measure in enumerate(limit.tracers) if measure.weights.shape == shape]
    if len(matches) > 1:
        raise ValueError(
            f"`limit` must carry one set of tracers of depth and width {shape[1:]}, to tell whose they are; got "
            f"{len(matches)}."
        )
    return matches[0] if matches else None


@eqx.filter_jit
def _distances(
    finite: AbstractModel, limit: AbstractModel, tracers: int | None, epsilon: Array, most_depths: int
) -> tuple[Excess, Float[Array, " saves"] | None]:
    def at_tau(models):
        finite, limit = models
        twins = None if tracers is None else limit.tracers[tracers]
        excess = _excess(finite.measure, limit.measure, twins, epsilon, most_depths)
        return excess, None if twins is None else coupling_distance(finite.measure, twins)

    dynamic, static = eqx.partition((finite, limit), eqx.is_array)
    return jax.lax.map(lambda arrays: at_tau(eqx.combine(arrays, static)), dynamic)


def _excess(
    finite: AbstractMeasure,
    limit: AbstractMeasure,
    twins: AbstractMeasure | None,
    epsilon: Array,
    most_depths: int,
) -> Excess:
    depth = finite.weights.shape[0]
    chosen = np.unique(np.linspace(0, depth - 1, min(most_depths, depth)).round().astype(int))
    x, a = coordinates(finite.particles)[chosen], finite.weights[chosen]
    law, b = jax.vmap(limit.at)(finite.depths[chosen])
    y = coordinates(law)
    if twins is not None:
        x0, a0 = coordinates(twins.particles)[chosen], a
    else:
        (x, a), (x0, a0), (y, b) = _split((x, a), (y, b))
    weights = finite.depth_weights[chosen] / jnp.sum(finite.depth_weights[chosen])
    value = conditional_divergence(x, y, weights, epsilon=epsilon, x_weights=a, y_weights=b)
    floor = conditional_divergence(x0, y, weights, epsilon=epsilon, x_weights=a0, y_weights=b)
    return Excess(value.value, floor.value, value.epsilon, value.converged & floor.converged)


def _split(first, second):
    """Cut clouds to (x, x0, y): x0 and y disjoint parts of the larger one, x as many of the smaller as x0 has."""
    small, large = (first, second) if first[0].shape[1] <= second[0].shape[1] else (second, first)
    count = max(1, min(small[0].shape[1], large[0].shape[1] // 2))
    return _part(small, slice(0, count)), _part(large, slice(0, count)), _part(large, slice(count, None))


def _part(cloud, part: slice):
    points, weights = (array[:, part] for array in cloud)
    return points, weights / jnp.sum(weights, axis=1, keepdims=True)
