"""The noise in a gap: the contribution of the reference's sampling error."""

from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, ArrayLike, Bool, Float

from .._backend.precision import Module
from .._checks import at_least, choice, instance, numbers, positive
from .._display.text import Brief, last
from ..flows._solution import with_models
from ..measures import AbstractMeasure, coordinates
from ..transport import epsilon_from_scale
from ._estimate import student_quantile
from ._pairs import Pairs, onto
from ._replicates import Replicates

GAPS = ("objective", "risk", "output", "gelbrich", "sinkhorn", "coupling")
"""The gaps that have a noise."""


class Resolved(Module):
    """Whether each gap exceeds the noise, `[saves]` each; None if that gap or its noise is unknown."""

    objective: Bool[Array, " saves"]
    risk: Bool[Array, " saves"]
    output: Bool[Array, " saves"]
    gelbrich: Bool[Array, " saves"] | None
    sinkhorn: Bool[Array, " saves"] | None
    coupling: Bool[Array, " saves"] | None


class Noise(Brief):
    r"""The root mean square error of the limit in each gap, from R replicates, `[saves]` each.

    The limit's sample is independent of the finite model's, so squares add: the expected square of a measured gap is
    the square of the true gap plus the square of the noise.

    - `objective`, `risk`: the error of Q and R of the pooled solution ([`wgf.analysis.Estimate`][], `error`).
    - `output`: the error of its outputs, a root mean square over prompts.
    - `gelbrich`, `sinkhorn`, `coupling`: the distances ([`wgf.analysis.Distances`][]) between the limit and itself, as
      its sampling error alone makes them. Each particle of a replicate moves in the replicate's own field and in the
      pooled field. The squares of the distances between these two clouds, divided by R − 1, are those of the pooled
      field's error (see [`wgf.analysis.Replicates.transport_error`][]).
    - `epsilon`: ε of `sinkhorn`.
    - `replicates`: R.

    Its `repr` is one line, and `summary()` has several. `equinox.tree_pformat` gives its whole structure.
    """

    replicates: int = eqx.field(static=True)
    objective: Float[Array, " saves"]
    risk: Float[Array, " saves"]
    output: Float[Array, " saves"]
    gelbrich: Float[Array, " saves"]
    sinkhorn: Float[Array, " saves"]
    coupling: Float[Array, " saves"]
    epsilon: Float[Array, " saves"]

    def _facts(self) -> Iterator[str]:
        yield f"{self.replicates} replicates"
        yield "at the last τ " + ", ".join(f"{name} {last(getattr(self, name))}" for name in GAPS)

    @property
    def factor(self) -> float:
        """The multiple of the noise that a gap must exceed: Student's 95 % quantile with R − 1 degrees of freedom."""
        return student_quantile(self.replicates)

    def resolves(self, name: str, gap: Float[ArrayLike, "*batch saves"]) -> Bool[Array, "*batch saves"]:
        """Whether each value of a gap exceeds `factor` times the noise of this name."""
        sizes = jnp.abs(numbers("gap", gap))
        choice("name", name, list(GAPS))
        return sizes > self.factor * jnp.broadcast_to(getattr(self, name), sizes.shape)


def noise(
    replicates: Replicates, *, epsilon: ArrayLike | None = None, most_depths: int = 8, mesh: Mesh | None = None
) -> Noise:
    """The noise of a limit in the gaps of any finite model. [`wgf.gap`][] computes it anew unless it is given.

    **Arguments:**

    - `replicates`: the solution of [`wgf.flow_replicates`][].
    - `epsilon`, `most_depths`, `mesh`: as in [`wgf.gap`][].

    **Returns:** [`wgf.analysis.Noise`][].

    **Raises:** `ValueError` if `replicates` is not such a solution or an option is not valid.

    Cost: a Sinkhorn divergence per replicate, τ and depth, each of the particles of one replicate.
    """
    instance("replicates", replicates, Replicates, "a solution of wgf.flow_replicates")
    with_models("replicates", replicates.pooled)
    if mesh is not None:
        instance("mesh", mesh, Mesh, "a mesh of devices, e.g. wgf.sharding.mesh(particles=2)")
    epsilon = default_epsilon(replicates.pooled.models.measure) if epsilon is None else positive("epsilon", epsilon)
    most_depths = at_least("most_depths", most_depths, 1)
    placed, scale = onto(mesh, (replicates, jnp.asarray(epsilon)))
    found = _noise(placed, scale, most_depths, mesh)
    # Back to the devices of the replicates.
    return found if mesh is None else jax.device_put(found, replicates.pooled.objective.sharding)


@eqx.filter_jit
def default_epsilon(measure: AbstractMeasure) -> Float[Array, ""]:
    """ε from the scale of a flow's initial cloud."""
    first = jax.tree.map(lambda leaf: leaf[0] if eqx.is_array(leaf) else leaf, measure)
    return epsilon_from_scale(coordinates(first.particles)[0])


@eqx.filter_jit
def _noise(replicates: Replicates, epsilon: Array, most_depths: int, mesh: Mesh | None) -> Noise:
    outputs = mean_square(replicates.outputs.error, replicates.pooled.prompt_weights)

    pairs = Pairs(replicates.members.models.measure, replicates.members_in_pooled_field())
    arrays, static = eqx.partition(pairs, eqx.is_array)
    each = jax.lax.map(lambda arrays: eqx.combine(arrays, static).distances(epsilon, most_depths, mesh), arrays)

    def together(distances: Float[Array, "replicates saves"]) -> Float[Array, " saves"]:
        return jnp.sqrt(jnp.mean(distances**2, axis=0) / (replicates.count - 1))

    return Noise(
        replicates=replicates.count,
        objective=replicates.objective.error,
        risk=replicates.risk.error,
        output=jnp.sqrt(outputs),
        gelbrich=together(each.gelbrich),
        sinkhorn=together(each.sinkhorn),
        coupling=together(each.coupling),
        epsilon=each.epsilon[0],
    )


def mean_square(outputs: Float[Array, "saves batch *classes"], weights: Array) -> Float[Array, " saves"]:
    """The mean over prompts of the squares of outputs."""
    return jnp.sum(weights[None] * (outputs**2).reshape(*outputs.shape[:2], -1).sum(axis=2), axis=1)
