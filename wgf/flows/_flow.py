"""`flow`: gradient flow of a model by one Diffrax solve."""

from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from .._checks import at_least, finite, holds, is_traced
from ..objective import Objective
from ._dynamics import prompt_weights
from ._solution import RESULTS, FlowSolution
from ._survey import repeat_model, survey
from ._velocity import dynamics_of, evaluate, tracer_velocity, tracers_of


def flow(
    objective: Callable[[Any], Float[Array, ""]],
    model: PyTree,
    taus: ArrayLike | Sequence[float],
    *,
    solver: diffrax.AbstractSolver = diffrax.Tsit5(),  # noqa: B008 (an immutable module)
    rtol: float | Array = 1e-4,
    atol: float | Array = 1e-6,
    controller: diffrax.AbstractStepSizeController | None = None,
    dt0: float | Array | None = None,
    steady: float | Array | None = None,
    max_steps: int = 4096,
    adjoint: diffrax.AbstractAdjoint = diffrax.RecursiveCheckpointAdjoint(),  # noqa: B008
    progress_meter: diffrax.AbstractProgressMeter = diffrax.NoProgressMeter(),  # noqa: B008
    throw: bool = True,
) -> FlowSolution:
    r"""Move every particle by \( \dot\theta = v(\theta, t) = -\nabla_\theta\,\delta Q/\delta\rho \).

    For a [`wgf.Transformer`][] this is its gradient flow; for a [`wgf.AveragedODE`][] it solves the Wasserstein-flow
    PDE
    \( \partial_\tau \rho = \nabla_\theta \cdot (\rho \nabla_\theta\,\delta Q/\delta\rho) \) along characteristics.
    Any other Equinox module moves by plain gradient flow, \( \dot\theta = -\nabla Q \) in all its inexact arrays.
    Pure: works under `jit`, `vmap` and `grad`.

    **Arguments:**

    - `objective`: Q, [`wgf.Objective`][], or any function (a module, say) of the model alone.
    - `model`: where the flow starts, at `taus[0]`: a model of this library, whose `tracers` move along, or any module.
    - `taus`: the training times to save at, increasing, at least two.
    - `solver`: any Diffrax solver for the outer flow. Tsit5 (the default) for short times and accuracy; its steps are
      bounded by stability from τ of some hundreds on, where [`wgf.flows.RKC`][] takes over. Implicit solvers work too,
      with a matrix-free root finder; on no measured case do they pay (`benchmarks/verification.py`).
    - `rtol`, `atol`: tolerances of the step size control, in the norm [`wgf.flows.ParticleNorm`][] (the worst
      particle's RMS error; of a plain module, the worst parameter's). Good values: 1e-3 to 1e-6 in float32, where below
      1e-6 rounding rules; to 1e-10 in float64.
    - `controller`: a step size controller in place of the default `PIDController(rtol, atol)`; `ConstantStepSize()`
      needs `dt0`. `solver=diffrax.Euler()` with `dt0=h` at constant steps is gradient descent of learning rate h·LM.
    - `dt0`: the first step; chosen automatically by default.
    - `steady`: stop where the dissipation has fallen to this fraction of its initial value, or so low that Q could not
      change by more than its rounding until the last τ. The solve's own error keeps the dissipation up: give
      tolerances below the square root of this fraction. Costs one more velocity a step.
    - `max_steps`: the most steps taken. Lower it when differentiating: the memory of the backward pass grows with it.
    - `adjoint`: how Diffrax differentiates the solve.
    - `progress_meter`: e.g. `diffrax.TqdmProgressMeter()`.
    - `throw`: whether a failed solve raises; if not, its `result` says why, and unreached rows are NaN.

    **Returns:** [`wgf.flows.FlowSolution`][].

    **Raises:** `ValueError` if `taus` do not increase, tolerances are negative, a number is not finite, or a model
    with tracers comes with an objective that has no first variation;
    `eqx.EquinoxRuntimeError` with the message of [`wgf.flows.RESULTS`][] if the solve fails and `throw=True`.

    Cost: one value and gradient of Q a stage (Tsit5: 6 a step), the working memory of the solver in copies of the
    particles, and one copy a saved τ.

    **Source:** arXiv:2410.23610, equations 2.7 and 3.3.
    """
    if tracers_of(model) and not isinstance(objective, Objective):
        raise ValueError(f"`objective` must be a wgf.Objective for a model with tracers; got {objective!r}.")
    dtype = _dtype(model)
    taus = _check_taus(taus).astype(dtype)
    options = _Options(
        solver=solver,
        controller=_controller(controller, rtol, atol, model, taus),
        dt0=None if dt0 is None else jnp.asarray(dt0, dtype),
        steady=None if steady is None else _check_positive("steady", steady).astype(dtype),
        max_steps=at_least("max_steps", max_steps, 1),
        adjoint=adjoint,
        progress_meter=progress_meter,
    )
    if options.dt0 is None and isinstance(options.controller, diffrax.ConstantStepSize):
        raise ValueError("`dt0` must be given with `controller=ConstantStepSize()`; got None.")
    solution = _flow(objective, model, taus, options)
    # Outside the compiled solve: a check inside would keep it out of JAX's persistent compilation cache.
    return solution.result.error_if(solution, _failed(solution.result)) if throw else solution


class _Options(eqx.Module):
    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController
    dt0: Array | None
    steady: Array | None
    max_steps: int = eqx.field(static=True)
    adjoint: diffrax.AbstractAdjoint
    progress_meter: diffrax.AbstractProgressMeter


class _State(eqx.Module):
    """What the outer solver moves: parameters, tracers, and the objective dissipated so far.

    Lists of leaves, since Diffrax's loops cannot hold the empty tuples that a PyTree of a user's own may contain.
    """

    parameters: list[Array]
    tracers: list[list[Array]]
    dissipated: Float[Array, ""]

    def place(self, model: PyTree) -> PyTree:
        """The model with this state's parameters and tracers."""
        dynamics = dynamics_of(model)
        placed = dynamics.place(model, _like(self.parameters, dynamics.parameters(model)))
        if not self.tracers:
            return placed
        tracers = zip(self.tracers, tracers_of(model), strict=True)
        return placed.with_tracer_particles(tuple(_like(leaves, measure.particles) for leaves, measure in tracers))


def _like(leaves: list[Array], parameters: PyTree[Array]) -> PyTree[Array]:
    return jax.tree.unflatten(jax.tree.structure(parameters), leaves)


def _start(model: PyTree) -> _State:
    return _State(
        jax.tree.leaves(dynamics_of(model).parameters(model)),
        [jax.tree.leaves(measure.particles) for measure in tracers_of(model)],
        jnp.zeros((), _dtype(model)),
    )


def _field(tau, state: _State, args: tuple[Any, PyTree]) -> _State:
    objective, model = args
    model = state.place(model)
    now = evaluate(objective, model)
    tracers = [jax.tree.leaves(v) for v in tracer_velocity(objective, model)] if state.tracers else []
    return _State(jax.tree.leaves(now.velocity), tracers, now.dissipation)


def _dtype(model: PyTree):
    leaves = jax.tree.leaves(dynamics_of(model).parameters(model))
    if not leaves:
        raise ValueError(f"`model` must hold at least one array of real numbers to move; got {model!r}.")
    return jnp.result_type(*leaves)


class _StateNorm(eqx.Module):
    """The norm of the parameters alone: tracers and the dissipated objective have no say in the steps."""

    norm: Callable[[PyTree[Array]], Float[Array, ""]]
    structure: Any = eqx.field(static=True)

    def __call__(self, state: _State) -> Float[Array, ""]:
        return self.norm(jax.tree.unflatten(self.structure, state.parameters))


class _Steady(eqx.Module):
    """The event that the dissipation is down at a threshold."""

    threshold: Float[Array, ""]

    def __call__(self, tau, state: _State, args, **kwargs: Any) -> Bool[Array, ""]:
        objective, model = args
        return evaluate(objective, state.place(model)).dissipation <= self.threshold


@eqx.filter_jit
def _flow(objective: Callable, model: PyTree, taus: Array, options: _Options) -> FlowSolution:
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(_field),
        options.solver,
        taus[0],
        taus[-1],
        options.dt0,
        _start(model),
        (objective, model),
        saveat=diffrax.SaveAt(subs=(diffrax.SubSaveAt(ts=taus), diffrax.SubSaveAt(t1=True))),
        stepsize_controller=options.controller,
        event=_event(objective, model, taus, options.steady),
        max_steps=options.max_steps,
        adjoint=options.adjoint,
        progress_meter=options.progress_meter,
        throw=False,
    )
    states, reached = _fill(solution)
    models = states.place(repeat_model(model, taus.size))
    saved = survey(objective, models)
    return FlowSolution(
        taus=taus,
        models=models,
        objective=saved.objective,
        risk=saved.risk,
        dissipation=saved.dissipation,
        dissipated=states.dissipated,
        outputs=saved.outputs,
        prompt_weights=prompt_weights(objective),
        reached=reached,
        stats=solution.stats,
        result=_result(solution.result, jnp.all(jnp.where(reached, jnp.isfinite(saved.objective), True))),
    )


def _event(objective: Callable, model: PyTree, taus: Array, steady: Array | None) -> diffrax.Event | None:
    if steady is None:
        return None
    start = evaluate(objective, model)
    # A start that is steady already has no dissipation to fall from: stop where what is left is rounding of Q.
    rounding = jnp.finfo(taus.dtype).eps * jnp.abs(start.objective) / (taus[-1] - taus[0])
    return diffrax.Event(_Steady(jnp.maximum(steady * start.dissipation, rounding)))


def _fill(solution: diffrax.Solution) -> tuple[_State, Bool[Array, " saves"]]:
    """Rows beyond the end of the solve: the final state after a steady stop, NaN after a failure."""
    assert solution.ys is not None
    assert solution.ts is not None
    saved, final = solution.ys
    reached = jnp.isfinite(solution.ts[0])
    steady = diffrax.is_okay(solution.result)

    def fill(rows, last):
        beyond = jnp.where(steady, last[-1], jnp.nan)
        return jnp.where(reached.reshape(-1, *(1,) * (rows.ndim - 1)), rows, beyond)

    return jax.tree.map(fill, saved, final), reached


def _result(result: diffrax.RESULTS, is_finite: Bool[Array, ""]) -> RESULTS:
    ours = RESULTS.promote(result)
    ours = RESULTS.where(ours == RESULTS.max_steps_reached, RESULTS.stalled, ours)
    ours = RESULTS.where(ours == RESULTS.dt_min_reached, RESULTS.dt_min, ours)
    return RESULTS.where(is_finite, ours, RESULTS.not_finite)


def _failed(result: RESULTS) -> Bool[Array, ""]:
    return (result != RESULTS.successful) & (result != RESULTS.event_occurred)


def _controller(controller, rtol, atol, model: PyTree, taus: Array) -> diffrax.AbstractStepSizeController:
    if controller is not None:
        return controller
    dynamics = dynamics_of(model)
    rtol, atol = (_check_positive(n, v).astype(_dtype(model)) for n, v in (("rtol", rtol), ("atol", atol)))
    norm = _StateNorm(dynamics.norm(model), jax.tree.structure(dynamics.parameters(model)))
    # A step below the spacing of τ would never arrive: a failure with a code of its own, not a loop to the last step.
    # The 4 is below the 100 ulps within which Diffrax joins the last step to the end.
    least = 4 * jnp.finfo(taus.dtype).eps * jnp.max(jnp.abs(taus))
    return diffrax.PIDController(rtol, atol, norm=norm, dtmin=least, force_dtmin=False)


def _check_taus(taus: ArrayLike | Sequence[float]) -> Float[Array, " saves"]:
    taus = finite("taus", taus)
    if taus.ndim != 1 or taus.shape[0] < 2:
        raise ValueError(f"`taus` must be a vector of at least two training times; got shape {taus.shape}.")
    got = None if is_traced(taus) else taus.tolist()
    return holds(taus, jnp.all(jnp.diff(taus) > 0), "`taus` must increase", got)


def _check_positive(argument: str, value: ArrayLike) -> Array:
    value = finite(argument, value)
    got = None if is_traced(value) else value.tolist()
    return holds(value, jnp.all(value > 0), f"`{argument}` must be positive", got)
