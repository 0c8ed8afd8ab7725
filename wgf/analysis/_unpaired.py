"""The unpaired comparison of a gap: a finite model's particles against the limit's, whose starts they do not share."""

import equinox as eqx
from jax.sharding import Mesh
from jaxtyping import Array

from .._backend.precision import Module
from ..flows import FlowSolution
from ..measures import AbstractMeasure, Eulerian
from ..models import AbstractModel
from ..transport import Excess
from ._excess import Clouds, fill_clouds, sinkhorn_excess
from ._pairs import onto, own_tracers
from ._potentials import carry_potentials
from ._replicates import Replicates


class _Compared(Module):
    """What an unpaired divergence compares: the clouds of the finite model, of the limit, and its tracers of it."""

    finite: AbstractMeasure
    limit: AbstractMeasure
    tracers: AbstractMeasure | None
    epsilon: Array


def unpaired_excess(
    finite: AbstractModel,
    limit: FlowSolution | Replicates,
    *,
    epsilon: Array,
    most_depths: int,
    mesh: Mesh | None,
) -> Excess:
    """The divergence of the two clouds with its noise floor."""
    reference = limit.pooled.models if isinstance(limit, Replicates) else limit.models
    count = limit.count if isinstance(limit, Replicates) else None
    own = own_tracers(finite, reference)
    if own is None and isinstance(reference.measure, Eulerian):
        raise ValueError(
            "`limit` lives on a grid, so it has no samples. Pass the flow of `limit.with_tracers(finite)`."
        )
    compared = onto(mesh, _Compared(finite.measure, reference.measure, own, epsilon))
    return _transports(_fill(compared, most_depths), compared.limit, compared.epsilon, count, mesh)


@eqx.filter_jit
def _fill(compared: _Compared, most_depths: int) -> Clouds:
    """The finite model's clouds at each saved τ: all that depends on its depth and width."""
    limit_width = compared.limit.weights.shape[-1]

    def at_tau(finite, tracers):
        return fill_clouds(finite, tracers, limit_width=limit_width, most_depths=most_depths)

    return eqx.filter_vmap(at_tau)(compared.finite, compared.tracers)


@eqx.filter_jit
def _transports(
    clouds: Clouds, limit: AbstractMeasure, epsilon: Array, replicates: int | None, mesh: Mesh | None
) -> Excess:
    """The excess at each saved τ."""

    def at_tau(initial, compared):
        clouds, limit = compared
        return sinkhorn_excess(clouds, limit, replicates, epsilon=epsilon, initial=initial, mesh=mesh)

    return carry_potentials(at_tau, (clouds, limit))
