"""The gap between a finite model's flow and the limit's."""

from collections.abc import Iterator
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._backend.compat import is_traced
from .._checks import at_least, flag, instance, positive
from .._display.datasets import Dataset, dataset, version_text
from .._display.table import Column, Tabled
from .._display.text import last
from .._finite import finite_rows
from ..flows import FlowSolution
from ..flows._solution import along, with_models
from ..models import AbstractModel, Transformer
from ..transport import Excess
from ._noise import GAPS, Noise, Resolved, default_epsilon, mean_square, noise as noise_of
from ._pairs import Distances, onto, pairs_of
from ._replicates import Replicates
from ._unpaired import unpaired_excess

# Objective, risk, and outputs or their root mean square.
_Scalars = tuple[Array, Array, Array]


class Gap(Tabled):
    r"""The distance of a finite model from the limit at each saved τ. All distances are distances, not squares.

    - `taus`: `[saves]`.
    - `objective`, `risk`: finite minus limit, `[saves]`.
    - `output`: the root mean square over prompts of the difference of outputs, `[saves]`.
    - `distances`: [`wgf.analysis.Distances`][] between the laws of the particles; None if the two flows share no
      particles. Its parts are here by their names too:
    - `gelbrich` ≤ W₂ ≤ `coupling`: bounds of the conditional Wasserstein distance, `[saves]`.
    - `sinkhorn`: \( \sqrt{S_\varepsilon} \), `[saves]`.
    - `noise`: [`wgf.analysis.Noise`][], the contribution of the limit's sampling error to each of these gaps; None if
      the limit is a single solution, whose error is unknown.
    - `unpaired`: [`wgf.transport.Excess`][] of the particle clouds, if it was asked for.

    Its `repr` is one line, `summary()` has several, and notebooks show a table. `equinox.tree_pformat` gives its whole
    structure.
    """

    taus: Float[Array, " saves"]
    objective: Float[Array, " saves"]
    risk: Float[Array, " saves"]
    output: Float[Array, " saves"]
    distances: Distances | None
    noise: Noise | None
    unpaired: Excess | None

    _note: ClassVar[str] = "±: noise of the limit. {marked}: the gap exceeds the noise with 95 % confidence."

    def _facts(self) -> Iterator[str]:
        yield along(self.taus)
        yield "at the last τ " + ", ".join(f"{name} {last(gap)}" for name, gap in self._gaps().items())
        if self.noise is not None:
            yield f"noise of {self.noise.replicates} replicates"

    def _columns(self) -> dict[str, Column]:
        noise, resolved = self.noise, self.resolved

        def column(name: str, gap: Any) -> Column:
            return Column(gap, *(None if part is None else getattr(part, name) for part in (noise, resolved)))

        return {"τ": Column(self.taus), **{name: column(name, gap) for name, gap in self._gaps().items()}}

    def _gaps(self) -> dict[str, Any]:
        """The gaps that there are, by their names."""
        fields = vars(self) | ({} if self.distances is None else vars(self.distances))
        return {name: fields[name] for name in GAPS if name in fields}

    @property
    def gelbrich(self) -> Float[Array, " saves"] | None:
        """The lower bound of W₂ from means and covariances."""
        return None if self.distances is None else self.distances.gelbrich

    @property
    def sinkhorn(self) -> Float[Array, " saves"] | None:
        r"""The Sinkhorn distance \( \sqrt{S_\varepsilon} \); reliable where `distances.converged`."""
        return None if self.distances is None else self.distances.sinkhorn

    @property
    def coupling(self) -> Float[Array, " saves"] | None:
        """The upper bound of W₂, the root mean square distance of pairs with the same starts."""
        return None if self.distances is None else self.distances.coupling

    @property
    @eqx.filter_jit
    def resolved(self) -> Resolved | None:
        """Which gaps exceed the noise, [`wgf.analysis.Resolved`][]; None if the noise is unknown."""
        noise = self.noise
        if noise is None:
            return None

        def resolves(name: str) -> Any:
            gap = getattr(self, name)
            return None if gap is None else noise.resolves(name, gap)

        return Resolved(*map(resolves, GAPS))

    def to_xarray(self, **attributes: Any) -> Dataset:
        """The gaps over `tau`, for xarray (extra `xarray`), with `noise.NAME` and `resolved.NAME` for each if known.

        **Arguments:**

        - `attributes`: attributes beside the versions and the number of replicates, e.g. `weight_decay=1e-3`.

        **Returns:** an `xarray.Dataset`.

        **Raises:** `ImportError` that names the extra if xarray is not installed; `ValueError` if arrays are traced.
        """
        holders = {"": self, "distances": self.distances, "unpaired": self.unpaired}
        holders |= {"noise": self.noise, "resolved": self.resolved}
        variables = {
            name if part in ("", "distances") else f"{part}.{name}": (("tau",), value)
            for part, holder in holders.items()
            for name, value in ({} if holder is None else vars(holder)).items()
            if eqx.is_array(value) and name != "taus"
        }
        own = {"versions": version_text()} | ({} if self.noise is None else {"replicates": self.noise.replicates})
        return dataset(variables, {"tau": (("tau",), self.taus)}, own | attributes)

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
    noise: Noise | None = None,
    unpaired: bool = False,
    mesh: Mesh | None = None,
) -> Gap:
    r"""Compare two flows at the same training times.

    The limit is one solution or [`wgf.analysis.Replicates`][]. With replicates, the finite model is compared with their
    pooled solution, and the gap includes the noise from the limit's sampling error.

    The laws of particles are compared by pairs with the same starts, so that the noise of the sample cancels. The pairs
    are the first of these that there are:

    - fresh particles: tracers that both models carry. Their number does not depend on the model's size, and they are
      independent of the model's own particles, so this is the fair choice. Good values: 512 at each of 4 depths.
    - the finite model's own particles and the limit's tracers of them.

    ```python
    fresh = wgf.measures.Gaussian(encoder, 0.7).layered(depth=4, width=512, key=key)
    finite, limit = finite.with_tracers(fresh), limit.with_tracers(fresh)
    gap = wgf.gap(wgf.flow(objective, finite, taus), wgf.flow(objective, limit, taus))
    gap.gelbrich, gap.sinkhorn, gap.coupling
    ```

    **Arguments:**

    - `finite`: the flow of the finite model.
    - `limit`: the flow of the limit, or of its replicates, at the same `taus`.
    - `epsilon`: ε of the Sinkhorn divergences, whose cost is \( \|x - y\|^2 \) (not half of it) and whose entropy is
      relative to the product of the marginals. Default: [`wgf.transport.epsilon_from_scale`][] of the limit's initial
      cloud, or that of `noise`.
    - `most_depths`: the most depths at which Sinkhorn divergences are computed, evenly spread.
    - `noise`: the noise of the limit, from [`wgf.analysis.noise`][], to compute it once for many finite models.
    - `unpaired`: whether to compare the finite model's cloud with the limit's cloud too, whose starts have nothing in
      common, with a noise floor (see below).
    - `mesh`: devices that share the transports of the depths, e.g. from [`wgf.sharding.mesh`][]. The particles are
      moved there.

    **Returns:** [`wgf.analysis.Gap`][]. At each τ where one of the solutions is not finite, every gap is NaN and
    `distances.converged` is False. That solution failed (its `result` gives the reason) or did not reach that τ.

    **Raises:** `ValueError` if the times or the prompts differ, tracers of one shape have other starts, an option is
    not valid, or unpaired clouds are asked for where the limit is on a grid and has no tracers. Times and starts that
    are traced count as equal.

    The unpaired divergence compares clouds of M and M' particles at no more than `most_depths` of the finite model's
    layers. In many dimensions the noise of the samples rules it: it says how far two samples are apart, not two laws.
    Its floor is the divergence of two independent samples of the limit's law, of the sizes of the compared clouds:

    - the limit's tracers of that model, against the limit's particles;
    - else the replicates, each against all others together. The floor is the mean;
    - else two disjoint parts of the larger cloud. In these two cases the compared clouds are cut to those sizes too.

    Cost: a Sinkhorn divergence of the pairs at each τ and depth; with replicates also that of `wgf.analysis.noise`.

    **Source:** arXiv:2410.23610, section 3; arXiv:2403.12887 for the conditional distance; M. Gelbrich, 1990, for the
    lower bound.
    """
    _check_flow("finite", finite)
    _check_flow("limit", limit.pooled if isinstance(limit, Replicates) else limit)
    if mesh is not None:
        instance("mesh", mesh, Mesh, "a mesh of devices, e.g. wgf.sharding.mesh(particles=2)")
    unpaired = flag("unpaired", unpaired)
    if noise is not None:
        instance("noise", noise, Noise, "the noise of the limit, wgf.analysis.noise(replicates)")
    reference = limit.pooled if isinstance(limit, Replicates) else limit
    if isinstance(reference.models, Transformer) and not isinstance(finite.models, Transformer):
        raise ValueError(
            "`finite` must be the flow of a wgf.Transformer, and `limit` that of a wgf.AveragedODE; got them in the "
            "other order. Swap the two."
        )
    if finite.taus.shape != reference.taus.shape or not _equal_or_traced(finite.taus, reference.taus):
        raise ValueError(f"`limit` must be solved at the taus of `finite`, {finite.taus}; got {reference.taus}.")
    if finite.outputs.shape != reference.outputs.shape:
        raise ValueError(
            f"`limit` must have outputs on the prompts of `finite`, {finite.outputs.shape}; got "
            f"{reference.outputs.shape}."
        )
    most_depths = at_least("most_depths", most_depths, 1)
    epsilon = _epsilon(reference, noise) if epsilon is None else positive("epsilon", epsilon)
    options = {"epsilon": jnp.asarray(epsilon), "most_depths": most_depths, "mesh": mesh}
    if noise is None and isinstance(limit, Replicates):
        noise = noise_of(limit, **options)
    scalars = [(s.objective, s.risk, s.outputs) for s in (finite, reference)]
    gaps = (
        _differences(*scalars, finite.prompt_weights),
        _distances(finite.models, reference.models, **options),
        unpaired_excess(finite.models, limit, **options) if unpaired else None,
    )
    measures = [(m.particles, m.weights) for s in (finite, reference) for m in (s.models.measure, *s.models.tracers)]
    # Back to the devices of the other gaps.
    gaps, measures = (gaps, measures) if mesh is None else jax.device_put((gaps, measures), finite.objective.sharding)
    (objective, risk, output), distances, excess = _where_finite((scalars, measures), gaps)
    return Gap(finite.taus, objective, risk, output, distances, noise, excess)


def _check_flow(argument: str, solution: FlowSolution) -> None:
    with_models(argument, instance(argument, solution, FlowSolution, "a solution of wgf.flow"))
    instance(argument, solution.models, AbstractModel, "the flow of a wgf.Transformer or a wgf.AveragedODE")


def _equal_or_traced(first: Array, second: Array) -> bool:
    return is_traced(first, second) or np.array_equal(first, second)


def _epsilon(reference: FlowSolution, noise: Noise | None) -> Float[Array, ""]:
    return default_epsilon(reference.models.measure) if noise is None else noise.epsilon[0]


@jax.jit
def _differences(finite: _Scalars, limit: _Scalars, prompt_weights: Array) -> _Scalars:
    """Differences of objectives and risks, and the root mean square of the differences of outputs."""
    objective, risk, outputs = jax.tree.map(jnp.subtract, finite, limit)
    return objective, risk, jnp.sqrt(mean_square(outputs, prompt_weights))


@jax.jit
def _where_finite(known: PyTree[Array], gaps: PyTree[Array]) -> PyTree[Array]:
    """The gaps, with NaN (for flags: False) at each τ where a solution is not finite."""
    rows = finite_rows(known)
    return jax.tree.map(lambda leaf: jnp.where(rows, leaf, False if leaf.dtype == bool else jnp.nan), gaps)


def _distances(
    finite: AbstractModel, limit: AbstractModel, *, epsilon: Array, most_depths: int, mesh: Mesh | None
) -> Distances | None:
    """The distances of the particles with the same starts, if there are any."""
    pairs = pairs_of(finite, limit)
    if pairs is None:
        return None
    pairs, epsilon = onto(mesh, (pairs, epsilon))
    return pairs.distances(epsilon, most_depths, mesh)
