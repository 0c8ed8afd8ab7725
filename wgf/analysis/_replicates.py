"""`flow_replicates`: a flow with error bars, from independently randomised replicates of its sample."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from .._backend.compat import is_traced
from .._backend.same import same
from .._checks import flag, instance, on_host, shown
from .._display.datasets import DataTree, data_tree, dataset
from .._display.table import Column, Tabled
from .._display.text import facts_of, known
from ..flows import RESULTS, FlowSolution, flow
from ..flows._export import curves_of
from ..flows._solution import checked, name_of, with_models
from ..measures import AbstractMeasure, Layered
from ..models import AbstractModel
from ..objective import Objective
from ..transport import coupling_distance
from ._estimate import Estimate

_Model = TypeVar("_Model", bound=AbstractModel)
_Tree = TypeVar("_Tree")


class Replicates(Tabled):
    r"""The flow of R pooled replicates, and the flow of each replicate alone.

    - `pooled`: the flow of the model whose particles are those of all replicates: the solution to use.
    - `members`: the flows of the replicates; every array has a leading axis `[R]`, as has the code `members.result`.

    Its `repr` is one line, `summary()` has several, and notebooks show a table. `equinox.tree_pformat` gives its whole
    structure.
    """

    pooled: FlowSolution
    members: FlowSolution

    _note: ClassVar[str] = "±: one standard error of the pooled solution."

    def _facts(self) -> Iterator[str]:
        yield f"{next(iter(getattr(self.members.objective, 'shape', ())), '?')} replicates"
        yield from facts_of(self.pooled)
        yield f"members {name_of(self.members.result)}"

    def _columns(self) -> dict[str, Column]:
        columns = dict(self.pooled._columns())
        for name in ("objective", "risk"):
            members = known(getattr(self.members, name), 2)
            assert members is not None
            # By NumPy: a display compiles nothing.
            errors = members.std(axis=0, ddof=1) / np.sqrt(len(members))
            columns[name] = columns[name]._replace(errors=errors)
        return columns

    def to_xarray(self, **attributes: Any) -> DataTree:
        """The pooled solution as [`wgf.flows.AbstractSolution.to_xarray`][] gives it, with a group `members`.

        The group holds the curves and outputs of the replicates over `replicate` and `tau`.
        """
        members = dataset(curves_of(self.members, ("replicate", "tau")), {"tau": (("tau",), self.pooled.taus)})
        return data_tree(self.pooled._groups(attributes) | {"/members": members})

    @property
    def count(self) -> int:
        """The number of replicates, R."""
        return self.members.objective.shape[0]

    @property
    def objective(self) -> Estimate:
        """Q, `[saves]`, with its error bar."""
        return Estimate(self.pooled.objective, self.members.objective)

    @property
    def risk(self) -> Estimate:
        """R, `[saves]`, with its error bar."""
        return Estimate(self.pooled.risk, self.members.risk)

    @property
    def outputs(self) -> Estimate:
        """The outputs, `[saves, B]`, with their error bars."""
        return Estimate(self.pooled.outputs, self.members.outputs)

    def transport_error(self) -> Float[Array, " saves"]:
        r"""The root mean square error of particles that move in the pooled field, `[saves]`: the square root of

        \[ E\,\|X_\tau(\theta) - X^\infty_\tau(\theta)\|^2 \approx \frac{1}{R (R - 1)} \sum_r \sum_{ij} w_i a_{ij}
           \|X^r_\tau(\theta_{ij}) - X_\tau(\theta_{ij})\|^2. \]

        Each particle of a replicate moves in the replicate's own field and in the pooled field. The spread of the
        fields separates the two paths. Its square is R times that of the pooled field's error.
        """
        with_models("replicates", self.members)
        return _transport_error(self)

    def members_in_pooled_field(self) -> AbstractMeasure:
        """The members' measures along their flows, with their particles as the pooled field moves them."""
        with_models("replicates", self.pooled)
        count = self.count

        def part(leaf):
            """Leaves `[saves, depth, R·M, ...]` to `[R, saves, depth, M, ...]`."""
            return jnp.moveaxis(leaf.reshape(*leaf.shape[:2], count, -1, *leaf.shape[3:]), 2, 0)

        return self.members.models.measure.with_particles(jax.tree.map(part, self.pooled.models.measure.particles))

    def raise_if_failed(self) -> "Replicates":
        """Return self; raise `eqx.EquinoxRuntimeError` with the first failed replicate and, if known, the reason."""
        failed, pooled = _failed(self.members.result), _failed(self.pooled.result)
        names = [f"Replicate {r} of {self.count}" for r in range(self.count)]
        if is_traced(failed):
            hints = [f"{name} failed; under `throw=False` its `result` says why." for name in names]

            def check(others: "Replicates") -> "Replicates":
                others = eqx.branched_error_if(others, failed.any(), jnp.argmax(failed), hints)
                return self.pooled.result.error_if(others, pooled)

            return checked(self, check)
        for r in np.flatnonzero(failed):
            reason = RESULTS[jax.tree.map(lambda code, r=r: code[r], self.members.result)]
            raise eqx.EquinoxRuntimeError(f"{names[r]} failed. {reason}")
        if bool(pooled):
            raise eqx.EquinoxRuntimeError(RESULTS[self.pooled.result])
        return self


def flow_replicates(
    objective: Objective,
    models: Sequence[AbstractModel],
    taus: ArrayLike | Sequence[float],
    *,
    tracers: Sequence[AbstractModel | Layered] = (),
    progress_meter: diffrax.AbstractProgressMeter = diffrax.NoProgressMeter(),  # noqa: B008 (an immutable module)
    throw: bool = True,
    **options: Any,
) -> Replicates:
    r"""Solve the flow from R pooled samples and from each sample alone, which gives the error of the pooled flow.

    ```python
    fresh_key, *keys = jax.random.split(key, 9)
    fresh = initial.layered(depth=4, width=512, key=fresh_key)
    limits = [wgf.AveragedODE(encoder, initial.spectral(nodes=4, width=64, key=k)) for k in keys]
    reference = wgf.flow_replicates(objective, limits, taus, tracers=[fresh])
    reference.risk.value, reference.risk.standard_error, reference.risk.bias
    ```

    **Arguments:**

    - `objective`: Q, [`wgf.Objective`][].
    - `models`: the replicates, R ≥ 2 models that differ only in their samples, drawn with independent keys. Good
      values: R = 8, whose 95 % interval is ±2.4 standard errors. It is ±3.2 for R = 4, and ±12.7 for R = 2.
    - `taus`: the training times to save at.
    - `tracers`: what the pooled flow carries as tracers: measures of fresh particles, or finite models.
    - `progress_meter`: the meter of the pooled flow, which runs after the flows of the replicates.
    - `throw`: whether a failed solve raises. If not, `pooled.result` and `members.result` give the reason.
    - `options`: the other options of [`wgf.flow`][].

    **Returns:** [`wgf.analysis.Replicates`][].

    **Raises:** `ValueError` if there are fewer than two models, or if they differ in more than their arrays' values or
    carry tracers of their own; `eqx.EquinoxRuntimeError` with the replicate that failed.

    Cost: twice that of the pooled flow without tracers, for any R: error bars cost one more solve. Each replicate takes
    its own steps. They run one after another on a CPU, and as one batch elsewhere.
    """
    throw = flag("throw", throw)
    if isinstance(tracers, str) or not isinstance(tracers, Sequence):
        raise ValueError(f"`tracers` must be a list of measures or models; got {shown(tracers)}.")
    start = pool(models).with_tracers(*tracers) if tracers else pool(models)
    # Before the members are solved: the tracers are not theirs.
    start.check_finite()
    members = flow_each(objective, models, taus, **options)
    pooled = flow(objective, start, taus, progress_meter=progress_meter, throw=False, **options)
    solution = Replicates(pooled, members)
    return solution.raise_if_failed() if throw else solution


def flow_each(
    objective: Objective, models: Sequence[AbstractModel], taus: ArrayLike | Sequence[float], **options: Any
) -> FlowSolution:
    """The flow of each replicate alone: the half of `flow_replicates` that can run in parallel with the pooled flow.

    ```python
    with ThreadPoolExecutor() as threads:  # one compiles while the other runs
        members = threads.submit(flow_each, objective, models, taus)
        pooled = threads.submit(wgf.flow, objective, pool(models), taus, throw=False)
    reference = Replicates(pooled.result(), members.result()).raise_if_failed()
    ```

    **Arguments:** as for [`wgf.flow_replicates`][].

    **Returns:** [`wgf.flows.FlowSolution`][], every array with a leading axis `[R]`. The `result` of a failed solve
    gives the reason.

    **Raises:** `ValueError` as `flow_replicates` does.

    Cost: that of the pooled flow without tracers. Replicates run one after another on a CPU, where a batch would wait
    for its slowest member, and as one batch elsewhere.
    """
    models = _check(models)

    def solve(model):
        return flow(objective, model, taus, throw=False, **options)

    if not _all_on_cpu(models):
        return eqx.filter_vmap(solve)(_stack(models))
    solutions = [solve(model) for model in models]
    known = jax.tree.map(lambda leaf: on_host(leaf) if eqx.is_array(leaf) else leaf, solutions)
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(known)):
        return _stack(solutions)
    # Stacked on the host, so that nothing is compiled.
    return jax.tree.map(
        lambda *leaves: jax.device_put(np.stack(leaves)) if isinstance(leaves[0], np.ndarray) else leaves[0], *known
    )


def _all_on_cpu(models: Sequence[AbstractModel]) -> bool:
    """Whether no array is traced and all lie on CPUs."""
    leaves = [leaf for leaf in jax.tree.leaves(models) if eqx.is_array(leaf)]
    return not is_traced(*leaves) and all(device.platform == "cpu" for leaf in leaves for device in leaf.devices())


def pool(models: Sequence[_Model]) -> _Model:
    """The model with the particles of all models, each with 1/R of its weight: the mean of their laws.

    **Arguments:** `models`: models of one structure and equal shapes.

    **Raises:** `ValueError` if structures or shapes differ.
    """
    models = _check(models)
    pooled = _side_by_side([(model.measure.particles, model.measure.weights) for model in models])
    return eqx.tree_at(lambda m: (m.measure.particles, m.measure.weights), models[0], pooled)


@jax.jit
def _side_by_side(samples: Sequence[tuple[PyTree[Array], Array]]) -> tuple[PyTree[Array], Array]:
    particles, weights = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1), *samples)
    return particles, weights / len(samples)


def _check(models: Sequence[_Model]) -> tuple[_Model, ...]:
    if not isinstance(models, Sequence):
        raise ValueError(f"`models` must be a list of models; got {shown(models)}.")
    models = tuple(models)
    for model in models:
        instance("models", model, AbstractModel, "a list of wgf.Transformer or wgf.AveragedODE").check_finite()
    if len(models) < 2:
        raise ValueError(f"`models` must hold at least two replicates, to estimate an error; got {len(models)}.")
    if any(model.tracers for model in models):
        raise ValueError("`models` must carry no tracers of their own. Pass `tracers`, which the pooled flow carries.")
    first, *others = (eqx.filter_eval_shape(lambda m: m, model) for model in models)
    for number, other in enumerate(others, start=1):
        if not same(first, other):
            raise ValueError(
                f"`models` must differ only in the values of their arrays; got {_first_of(other, first)} in replicate "
                f"{number}, and {_first_of(first, other)} in the first."
            )
    # Copies of functions make structures unequal, so all models take the structure of the first.
    structure = jax.tree.structure(models[0])
    return tuple(jax.tree.unflatten(structure, jax.tree.leaves(model)) for model in models)


def _first_of(model: AbstractModel, other: AbstractModel) -> str:
    """The first part of a model that another lacks: its path, and its shape and type or its value."""
    known = set(map(str, jax.tree_util.tree_leaves_with_path(other)))
    own = (part for part in jax.tree_util.tree_leaves_with_path(model) if str(part) not in known)
    found: tuple[Any, Any] = next(own, ((), model))
    path, leaf = found
    kind = f"{leaf.dtype}{list(leaf.shape)}" if hasattr(leaf, "dtype") else shown(leaf)
    return f"{kind} at {jax.tree_util.keystr(path) or 'its root'}"


@eqx.filter_jit
def _stack(trees: Sequence[_Tree]) -> _Tree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0], *trees)


@eqx.filter_jit
def _failed(result: RESULTS) -> Bool[Array, "*replicates"]:
    return (result != RESULTS.successful) & (result != RESULTS.event_occurred)


@eqx.filter_jit
def _transport_error(replicates: Replicates) -> Float[Array, " saves"]:
    each: Callable = eqx.filter_vmap(eqx.filter_vmap(coupling_distance))
    squares = each(replicates.members.models.measure, replicates.members_in_pooled_field()) ** 2
    return jnp.sqrt(jnp.sum(squares, axis=0) / (replicates.count * (replicates.count - 1)))
