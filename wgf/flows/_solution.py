"""The results of flows and training runs."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._backend.compat import is_traced, members_of
from .._checks import shown
from .._display.datasets import Dataset, DataTree, check_known, data_tree, version_text
from .._display.table import Column, Tabled
from .._display.text import counted, facts_of, kind, known, memory, number
from ._export import groups

_Solution = TypeVar("_Solution", bound="AbstractSolution")
_Tree = TypeVar("_Tree")


with warnings.catch_warnings():
    # Diffrax has an empty text for `successful`, and Equinox warns if a subclass changes a text.
    warnings.simplefilter("ignore")

    class RESULTS(diffrax.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
        """How a flow ended: Diffrax's codes, and further causes of failure."""

        successful = "successful"
        not_finite = (
            "The flow stopped being finite: particles or the objective are NaN or infinite. Decrease `rtol`, the "
            "constant step or the learning rate, or increase the objective's `weight_decay`."
        )
        stalled = (
            "The flow ran out of steps before the last of `taus`. Increase `max_steps` or `rtol`, or pass "
            "`solver=wgf.flows.RKC()` for long times. `stats` counts accepted and rejected steps."
        )
        dt_min = (
            "The steps fell below the spacing of numbers in τ after the last τ that was reached: the velocity is NaN "
            "or infinite there, or jumps. Increase the objective's `weight_decay`. If the model's depth solve has an "
            "adaptive controller, tighten it, or use constant `steps`."
        )
        stiff = (
            "The flow ran out of steps because it is stiff: stability of the explicit method bounds them, not "
            "accuracy. Pass `solver=wgf.flows.RKC()`."
        )
        too_tight = (
            "The tolerance is below what the numbers resolve: `rtol` is less than ten times their spacing. Increase "
            "`rtol` (to 1e-6 or more in float32), or compute in float64 "
            "(`jax.config.update('jax_enable_x64', True)`)."
        )
        interrupted = (
            "The run was interrupted (Ctrl-C or SIGTERM). All states so far are kept. With a `directory`, the same "
            "call resumes."
        )
        out_of_time = (
            "The run reached its `time_limit`. Its states so far are kept. With a `directory`, the same call resumes."
        )


COUNTS = ("num_steps", "num_accepted_steps", "num_rejected_steps")
"""What the stats of a flow count."""


def with_models(argument: str, solution: _Solution) -> _Solution:
    """Return a solution; raise `ValueError` if it holds no models, as one that was read with a result."""
    if solution.models is None:
        raise ValueError(f"`{argument}` must hold its models; a solution that was read with a result holds none.")
    return solution


def translate(result: diffrax.RESULTS) -> RESULTS:
    """Diffrax's code as one of [`wgf.flows.RESULTS`][]."""
    ours = RESULTS.promote(result)
    ours = RESULTS.where(ours == RESULTS.max_steps_reached, RESULTS.stalled, ours)
    return RESULTS.where(ours == RESULTS.dt_min_reached, RESULTS.dt_min, ours)


def name_of(result: Any) -> str:
    """The name of a code of [`wgf.flows.RESULTS`][]; how often there is each in an array of codes."""
    (code,) = jax.tree.leaves(result) or [None]
    if not hasattr(code, "ndim") or (codes := known(code, code.ndim)) is None:
        return f"result {kind(code)}"
    names = [members_of(RESULTS)[code] for code in codes.ravel()]
    if len(set(names)) == 1:
        return names[0]
    return " and ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))


class AbstractSolution(Tabled):
    """Models along a run, with their objective, risk and dissipation.

    Its `repr` is one line, `summary()` has several, and notebooks show a table. `equinox.tree_pformat` gives its whole
    structure.
    """

    models: eqx.AbstractVar[PyTree]
    objective: eqx.AbstractVar[Float[Array, " saves"]]
    risk: eqx.AbstractVar[Float[Array, " saves"]]
    dissipation: eqx.AbstractVar[Float[Array, " saves"]]
    outputs: eqx.AbstractVar[Float[Array, "saves batch *classes"]]
    prompt_weights: eqx.AbstractVar[Float[Array, " batch"]]
    result: eqx.AbstractVar[RESULTS]

    def _facts(self) -> Iterator[str]:
        yield from self._progress()
        yield _fall("risk", self.risk)
        yield name_of(self.result)

    def _details(self) -> Iterator[str]:
        yield _fall("objective", self.objective)
        yield _fall("dissipation", self.dissipation)
        yield f"models: {', '.join(facts_of(self.models))}"
        yield f"all arrays: {memory(self)}"

    def _progress(self) -> Iterator[str]:
        """How far the run went."""
        yield f"saves {kind(self.objective)}"

    def _columns(self) -> dict[str, Column]:
        return {name: Column(getattr(self, name)) for name in ("objective", "risk", "dissipation")}

    def to_xarray(self, **attributes: Any) -> DataTree | Dataset:
        """The solution with named dimensions, for xarray (extra `xarray`), e.g. to write netCDF or to plot.

        The root holds the curves over `tau` (`step` after `train`) and the outputs over `prompt`. The group `measure`
        holds the particles over `depth` and `particle`, and `tracers_0`, ... those of each tracer measure.

        **Arguments:**

        - `attributes`: attributes of the root beside the result, counts of steps and versions, e.g.
          `weight_decay=1e-3`.

        **Returns:** an `xarray.DataTree`; an `xarray.Dataset` if the model is a plain module, whose arrays are in it.

        **Raises:** `ImportError` that names the extra if xarray is not installed; `ValueError` if arrays are traced or
        hold several solutions.
        """
        found = self._groups(attributes)
        return data_tree(found) if len(found) > 1 else found["/"]

    def _groups(self, attributes: dict[str, Any]) -> dict[str, Dataset]:
        """The data sets of `to_xarray` by their paths."""
        check_known(self.objective)
        if self.objective.ndim != 1:
            raise ValueError(
                f"`to_xarray` takes one solution; got several, `objective` {kind(self.objective)}. Select one by "
                "`jax.tree.map(lambda leaf: leaf[i], ...)`."
            )
        own = {"result": name_of(self.result), "versions": version_text(), **self._counts()}
        return groups(self, self._clock(), own | attributes)

    def _clock(self) -> tuple[str, Any]:
        """The name and the values of what the saves are counted by."""
        return "save", np.arange(len(self.objective))

    def _counts(self) -> dict[str, int]:
        """The counts of steps."""
        return {}

    def model_at(self, index: int) -> PyTree:
        """The model at one save; negative indices count from the last.

        **Raises:** `ValueError` if there is no such save, or the solution holds no models.
        """
        with_models("solution", self)
        if self.objective.ndim != 1:
            raise ValueError(
                f"`model_at` takes one solution; got solutions with axes {self.objective.shape}. Use it under "
                "`eqx.filter_vmap`."
            )
        saves = self.objective.shape[0]
        if not is_traced(index) and not (_is_whole(index) and -saves <= index < saves):
            raise ValueError(f"`index` must be one of {saves} saves, {-saves} to {saves - 1}; got {shown(index)}.")
        return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, self.models)


class FlowSolution(AbstractSolution):
    r"""A gradient flow at the saved times.

    - `taus`: the training times τ, `[saves]`.
    - `models`: the models, every array with leading axis `[saves]` (use `model_at` or `jax.vmap`).
    - `objective`, `risk`: Q and R, `[saves]`.
    - `dissipation`: \( \int \|v\|^2 d\rho = -dQ/d\tau \), `[saves]`.
    - `dissipated`: its integral from the first τ, `[saves]`: \( Q(\tau_0) - Q(\tau) \) up to the solver's error. At a
      temperature above zero both count the velocity v alone, although noise changes Q too. On a grid they are those of
      the free energy \( F = Q - \sigma S \), with `models.measure.entropy()` for S.
    - `outputs`: the readout for every prompt, `[saves, B]`; `prompt_weights`: the data measure's weights. An
      objective that is a plain function has no prompts (B = 0), and its risk is Q.
    - `reached`: whether the solve reached each τ. After a steady-state stop later rows hold the steady model; after a
      failure they are NaN.
    - `stats`: `num_steps` taken, `num_accepted_steps` and `num_rejected_steps`.
    - `result`: one of [`wgf.flows.RESULTS`][].
    """

    taus: Float[Array, " saves"]
    models: PyTree
    objective: Float[Array, " saves"]
    risk: Float[Array, " saves"]
    dissipation: Float[Array, " saves"]
    dissipated: Float[Array, " saves"]
    outputs: Float[Array, "saves batch *classes"]
    prompt_weights: Float[Array, " batch"]
    reached: Bool[Array, " saves"]
    stats: dict[str, PyTree]
    result: RESULTS

    def _facts(self) -> Iterator[str]:
        *facts, result = super()._facts()
        yield from facts
        if "num_steps" in self.stats:
            yield counted(number(self.stats["num_steps"]), "step")
        yield result

    def _clock(self) -> tuple[str, Any]:
        return "tau", self.taus

    def _counts(self) -> dict[str, int]:
        return {name: int(count) for name, count in self.stats.items()}

    def _progress(self) -> Iterator[str]:
        yield along(self.taus)
        reached = known(self.reached, 1)
        if reached is not None and not reached.all():
            yield f"{reached.sum()} of them reached"

    def _columns(self) -> dict[str, Column]:
        return {"τ": Column(self.taus), **super()._columns()}


class TrainSolution(AbstractSolution):
    """A training run by an optimiser.

    - `steps`: the number of updates done at each save, `[saves]`.
    - `models`, `objective`, `risk`, `dissipation`, `outputs`, `prompt_weights`: as in [`wgf.flows.FlowSolution`][],
      over the whole data measure.
    - `result`: one of [`wgf.flows.RESULTS`][].
    """

    steps: Int[Array, " saves"]
    models: PyTree
    objective: Float[Array, " saves"]
    risk: Float[Array, " saves"]
    dissipation: Float[Array, " saves"]
    outputs: Float[Array, "saves batch *classes"]
    prompt_weights: Float[Array, " batch"]
    result: RESULTS

    def _clock(self) -> tuple[str, Any]:
        return "step", self.steps

    def _progress(self) -> Iterator[str]:
        steps = known(self.steps, 1)
        yield f"steps {kind(self.steps)}" if steps is None else f"{counted(steps[-1], 'step')}, {len(steps)} saves"

    def _columns(self) -> dict[str, Column]:
        return {"steps": Column(self.steps), **super()._columns()}


def along(taus: Any) -> str:
    """The number of training times, the first and the last."""
    times = known(taus, 1)
    return f"τ {kind(taus)}" if times is None else f"{len(times)} τ from {times[0]:.4g} to {times[-1]:.4g}"


def _fall(name: str, values: Any) -> str:
    """The first value and the last one that is finite."""
    found = known(values, 1)
    if found is None:
        return f"{name} {kind(values)}"
    finite = found[np.isfinite(found)]
    return f"{name} {finite[0]:.3g} → {finite[-1]:.3g}" if finite.size else f"{name} not finite"


def _is_whole(index: Any) -> bool:
    return hasattr(index, "__index__") and not isinstance(index, bool) and np.ndim(index) == 0


def _is_key(leaf: Any) -> bool:
    return eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def checked(tree: _Tree, check: Callable[[_Tree], _Tree]) -> _Tree:
    """A tree with a check of Equinox, which takes no random keys. A model may hold some."""
    keys, others = eqx.partition(tree, _is_key)
    return eqx.combine(keys, check(others))


def raise_if(solution: _Solution, failed: Bool[Array, ""]) -> _Solution:
    """Raise with the message of the solution's result: at once, or at run time if the result is traced."""
    if is_traced(failed):
        return checked(solution, lambda others: solution.result.error_if(others, failed))
    # Raised here, so that it also works if Equinox's checks are turned off.
    if bool(failed):
        raise eqx.EquinoxRuntimeError(RESULTS[solution.result])
    return solution
