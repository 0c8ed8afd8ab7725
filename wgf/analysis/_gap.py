"""The gap between a finite model's flow and the limit's."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from .._backend.precision import Module
from .._checks import at_least, instance, positive
from .._finite import finite_rows
from ..flows import FlowSolution
from ..measures import AbstractMeasure, Eulerian, coordinates
from ..models import AbstractModel
from ..transport import Excess, coupling_distance, epsilon_from_scale
from ._excess import Clouds, fill_clouds, sinkhorn_excess
from ._noise import Noise, Resolved
from ._replicates import Replicates

# Objective, risk, and outputs or their root mean square.
_Scalars = tuple[Array, Array, Array]


class Gap(Module):
    r"""The distance of a finite model from the limit at each saved τ.

    - `taus`: `[saves]`.
    - `objective`, `risk`: finite minus limit, `[saves]`.
    - `output`: the root mean square over prompts of the difference of outputs, `[saves]`.
    - `sinkhorn`: [`wgf.transport.Excess`][] of the particle clouds, integrated over depth, `[saves]` each: value, noise
      floor, ε and whether the iterations converged. A squared distance.
    - `coupling`: the mean squared distance of the finite model's particles from their own tracers, `[saves]`; None
      if the limit carries no tracers of that model.
    - `noise`: [`wgf.analysis.Noise`][], the contribution of the limit's sampling error to these gaps; None if the limit
      is a single solution, whose error is unknown.
    """

    taus: Float[Array, " saves"]
    objective: Float[Array, " saves"]
    risk: Float[Array, " saves"]
    output: Float[Array, " saves"]
    sinkhorn: Excess
    coupling: Float[Array, " saves"] | None
    noise: Noise | None

    @property
    @eqx.filter_jit
    def resolved(self) -> Resolved | None:
        """Which gaps exceed the noise, [`wgf.analysis.Resolved`][]; None if the noise is unknown."""
        if self.noise is None:
            return None
        return self.noise.resolve(self.objective, self.risk, self.output, self.coupling, self.sinkhorn.excess)

    def squared_output(self) -> Float[Array, " saves"]:
        r"""The squared output gap minus the limit's noise, \( \mathrm{output}^2 - \mathrm{noise}^2 \).

        It is unbiased to first order, and may be negative. The square of `output` is too large by the variance of the
        reference. Without replicates nothing is subtracted.
        """
        return self.output**2 if self.noise is None else self.output**2 - self.noise.output**2


def gap(
    finite: FlowSolution,
    limit: FlowSolution | Replicates,
    *,
    epsilon: ArrayLike | None = None,
    most_depths: int = 8,
    mesh: Mesh | None = None,
) -> Gap:
    r"""Compare two flows at the same training times.

    The limit is one solution or [`wgf.analysis.Replicates`][]. With replicates, the finite model is compared with their
    pooled solution, and the gap includes the noise from the limit's sampling error.

    The particle clouds are compared depth by depth, at no more than `most_depths` of the finite model's layers. The
    noise floor is the divergence of two independent samples of the limit's law, of the sizes of the compared clouds.
    The two samples are the first available of these:

    - the limit's tracers of that model, against the limit's particles. The tracers started as the finite model did, and
      moved in the limit's field.
    - the replicates, each against all others together. The floor is the mean.
    - two disjoint parts of the larger cloud.

    In the last two cases the compared clouds are cut to those sizes too.

    **Arguments:**

    - `finite`: the flow of the finite model.
    - `limit`: the flow of the limit, or of its replicates, at the same `taus`. If it carries the finite model's
      particles as tracers, the coupling distance is computed too.
    - `epsilon`: ε of the Sinkhorn divergence. Default: [`wgf.transport.epsilon_from_scale`][] of the limit's initial
      cloud.
    - `most_depths`: the most layers whose clouds are compared, evenly spread.
    - `mesh`: devices that share the transports of the layers, e.g. from [`wgf.sharding.mesh`][]. The particles are
      moved there.

    **Returns:** [`wgf.analysis.Gap`][]. At each τ where one of the solutions is not finite, every gap is NaN and
    `sinkhorn.converged` is False. That solution failed (its `result` gives the reason) or did not reach that τ.

    **Raises:** `ValueError` if the times or the prompts differ, tracers of the same shape make the match ambiguous, or
    a limit on a grid has no tracers.

    Cost: two Sinkhorn divergences of M against M' points per τ and depth; with replicates and no tracers, two per
    replicate.

    **Source:** arXiv:2410.23610, section 3; arXiv:2403.12887 for the distance.
    """
    _check_flow("finite", finite)
    _check_flow("limit", limit.pooled if isinstance(limit, Replicates) else limit)
    if mesh is not None:
        instance("mesh", mesh, Mesh, "a mesh of devices, e.g. wgf.sharding.mesh(particles=2)")
    replicates = limit if isinstance(limit, Replicates) else None
    reference = limit.pooled if isinstance(limit, Replicates) else limit
    if finite.taus.shape != reference.taus.shape or not np.array_equal(finite.taus, reference.taus):
        raise ValueError(f"`limit` must be solved at the taus of `finite`, {finite.taus}; got {reference.taus}.")
    if finite.outputs.shape != reference.outputs.shape:
        raise ValueError(
            f"`limit` must have outputs on the prompts of `finite`, {finite.outputs.shape}; got "
            f"{reference.outputs.shape}."
        )
    most_depths = at_least("most_depths", most_depths, 1)
    index = _match(finite.models, reference.models)
    if index is None and isinstance(reference.models.measure, Eulerian):
        raise ValueError(
            "`limit` lives on a grid, so it has no samples. Pass the flow of `limit.with_tracers(finite)`."
        )
    epsilon = _epsilon(reference.models.measure) if epsilon is None else positive("epsilon", epsilon)
    count = None if replicates is None else replicates.count
    tracers = None if index is None else reference.models.tracers[index]
    compared = _Compared(finite.models.measure, reference.models.measure, tracers, jnp.asarray(epsilon))
    if mesh is not None:
        arrays, static = eqx.partition(compared, eqx.is_array)
        compared = eqx.combine(jax.device_put(arrays, NamedSharding(mesh, PartitionSpec())), static)
    clouds, coupling, is_finite = _fill(compared, most_depths)
    found = (*_transports(clouds, compared.limit, compared.epsilon, count, mesh), coupling, is_finite)
    # Back to the devices of the other gaps.
    sinkhorn, spread, coupling, is_finite = found if mesh is None else jax.device_put(found, finite.objective.sharding)
    scalars = [(s.objective, s.risk, s.outputs) for s in (finite, reference)]
    gaps = _differences(*scalars, finite.prompt_weights), sinkhorn, coupling
    (objective, risk, output), sinkhorn, coupling = _where_finite((scalars, is_finite), gaps)
    return Gap(
        taus=finite.taus,
        objective=objective,
        risk=risk,
        output=output,
        sinkhorn=sinkhorn,
        coupling=coupling,
        noise=None if replicates is None else _noise(replicates, coupling is not None, spread),
    )


def _check_flow(argument: str, solution: FlowSolution) -> None:
    instance(argument, solution, FlowSolution, "a solution of wgf.flow")
    instance(argument, solution.models, AbstractModel, "the flow of a wgf.Transformer or a wgf.AveragedODE")


@eqx.filter_jit
def _epsilon(measure: AbstractMeasure) -> Float[Array, ""]:
    """ε from the scale of a flow's initial cloud."""
    first = jax.tree.map(lambda leaf: leaf[0] if eqx.is_array(leaf) else leaf, measure)
    return epsilon_from_scale(coordinates(first.particles)[0])


@jax.jit
def _differences(finite: _Scalars, limit: _Scalars, prompt_weights: Array) -> _Scalars:
    """Differences of objectives and risks, and the root mean square of the differences of outputs."""
    objective, risk, outputs = jax.tree.map(jnp.subtract, finite, limit)
    return objective, risk, jnp.sqrt(_mean_square(outputs, prompt_weights))


@jax.jit
def _where_finite(known: tuple[list[_Scalars], Bool[Array, " saves"]], gaps: PyTree[Array]) -> PyTree[Array]:
    """The gaps, with NaN (for flags: False) at each τ where a solution is not finite."""
    scalars, is_finite = known
    rows = finite_rows(scalars) & is_finite
    return jax.tree.map(lambda leaf: jnp.where(rows, leaf, False if leaf.dtype == bool else jnp.nan), gaps)


@eqx.filter_jit
def _noise(replicates: Replicates, coupled: bool, spread: Float[Array, " saves"] | None) -> Noise:
    outputs = _mean_square(replicates.outputs.error, replicates.pooled.prompt_weights)
    return Noise(
        replicates=replicates.count,
        objective=replicates.objective.error,
        risk=replicates.risk.error,
        output=jnp.sqrt(outputs),
        coupling=replicates.transport_error() if coupled else None,
        excess=spread,
    )


def _mean_square(outputs: Float[Array, "saves batch *classes"], weights: Array) -> Float[Array, " saves"]:
    return jnp.sum(weights[None] * (outputs**2).reshape(*outputs.shape[:2], -1).sum(axis=2), axis=1)


def _match(finite: AbstractModel, limit: AbstractModel) -> int | None:
    """The index of the limit's tracers that have the finite model's depth and width, or None."""
    shape = finite.measure.weights.shape
    matches = [i for i, measure in enumerate(limit.tracers) if measure.weights.shape == shape]
    if len(matches) > 1:
        raise ValueError(
            f"`limit` must carry only one set of tracers of depth and width {shape[1:]}, because they are matched by "
            f"shape; got {len(matches)}."
        )
    return matches[0] if matches else None


class _Compared(Module):
    finite: AbstractMeasure
    limit: AbstractMeasure
    tracers: AbstractMeasure | None
    epsilon: Array


@eqx.filter_jit
def _fill(compared: _Compared, most_depths: int) -> tuple[Clouds, Float[Array, " saves"] | None, Bool[Array, " saves"]]:
    """The finite model's clouds and the coupling distance at each saved τ: all that depends on its depth and width.

    Also whether all particles and weights are finite, including those of layers that are not compared.
    """
    limit_width = compared.limit.weights.shape[-1]

    def at_tau(finite, tracers):
        clouds = fill_clouds(finite, tracers, limit_width=limit_width, most_depths=most_depths)
        return clouds, None if tracers is None else coupling_distance(finite, tracers)

    measures = [m for m in (compared.finite, compared.limit, compared.tracers) if m is not None]
    is_finite = finite_rows([(measure.particles, measure.weights) for measure in measures])
    return *eqx.filter_vmap(at_tau)(compared.finite, compared.tracers), is_finite


@eqx.filter_jit
def _transports(
    clouds: Clouds, limit: AbstractMeasure, epsilon: Array, replicates: int | None, mesh: Mesh | None
) -> tuple[Excess, Float[Array, " saves"] | None]:
    """The excess and its noise at each saved τ, with potentials carried from each τ to the next."""
    dynamic, static = eqx.partition((clouds, limit), eqx.is_array)

    def at_tau(initial, arrays):
        options = {"epsilon": epsilon, "initial": initial, "mesh": mesh}
        clouds, limit = eqx.combine(arrays, static)
        excess, spread, potentials = sinkhorn_excess(clouds, limit, replicates, **options)
        return potentials, (excess, spread)

    shapes, _ = jax.eval_shape(at_tau, None, jax.tree.map(lambda leaf: leaf[0], dynamic))
    # Infinite potentials mean that no guess is known.
    unknown = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.inf, leaf.dtype), shapes)
    return jax.lax.scan(at_tau, unknown, dynamic)[1]
