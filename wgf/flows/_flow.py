"""`flow`: gradient flow of a model by one Diffrax solve."""

from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, PyTree

from .._checks import at_least, finite, holds, is_traced, not_negative
from ..objective import Objective
from ._dynamics import AbstractDynamics, prompt_weights
from ._langevin import check_noise, noise_term
from ._solution import RESULTS, FlowSolution
from ._state import State, field, start
from ._survey import repeat_model, survey
from ._velocity import dynamics_of, evaluate, tracers_of


def flow(
    objective: Callable[[Any], Float[Array, ""]],
    model: PyTree,
    taus: ArrayLike | Sequence[float],
    *,
    temperature: float | Array = 0.0,
    key: PRNGKeyArray | None = None,
    solver: diffrax.AbstractSolver | None = None,
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

    On a [`wgf.measures.Eulerian`][] measure the weights move, by finite volumes: an independent solution of the PDE.

    A `temperature` σ > 0 adds noise, \( d\theta = v\,d\tau + \sqrt{2\sigma}\,dW \): mean-field Langevin dynamics, which
    descends the free energy \( F = Q - \sigma S \), with the entropy \( S = -\int \rho \log \rho \), to the Gibbs law
    \( \rho \propto \exp(-\tfrac1\sigma\,\delta Q/\delta\rho) \). On a grid there is no noise: the PDE gains the
    diffusion \( \sigma\Delta\rho \). The objective reported is Q at any temperature.

    **Arguments:**

    - `objective`: Q, [`wgf.Objective`][], or any function (a module, say) of the model alone.
    - `model`: where the flow starts, at `taus[0]`: a model of this library, whose `tracers` move along, or any module.
    - `taus`: the training times to save at, increasing, at least two.
    - `temperature`: σ ≥ 0.
    - `key`: draws the noise of particles at σ > 0, and is needed for it. Noise of a finite model is a function of the
      key, the times and `dt0` alone, and its tracers in the limit feel the same; particles that are interpolated over
      depth feel one noise at all depths.
    - `solver`: any Diffrax solver for the outer flow. Default: `Tsit5()`, for short times and accuracy; its steps are
      bounded by stability from τ of some hundreds on, where [`wgf.flows.RKC`][] takes over. Implicit solvers work too,
      with a matrix-free root finder; on no measured case do they pay (`benchmarks/verification.py`). `Heun()` with
      noise (which takes a solver of stochastic equations; order 1 in the particles' paths, 2 in their law) and for a
      measure on a grid.
    - `rtol`, `atol`: tolerances of the step size control, in the norm [`wgf.flows.ParticleNorm`][] (the worst
      particle's RMS error; of a plain module, the worst parameter's). Good values: 1e-3 to 1e-6 in float32, where below
      1e-6 rounding rules; to 1e-10 in float64. On a grid: `rtol + atol` bounds a step's error in total variation.
    - `controller`: a step size controller in place of the default: `PIDController(rtol, atol)`; on a grid
      [`wgf.flows.CourantController`][] around it, without which masses may not stay positive; with noise
      `ConstantStepSize()`, which needs `dt0`. `solver=diffrax.Euler()` with `dt0=h` at constant steps is gradient
      descent of learning rate h·LM.
    - `dt0`: the first step; chosen automatically by default, but needed with noise.
    - `steady`: stop where the dissipation has fallen to this fraction of its initial value, or so low that Q could not
      change by more than its rounding until the last τ. The solve's own error keeps the dissipation up: give
      tolerances below the square root of this fraction. Costs one more velocity a step.
    - `max_steps`: the most steps taken. Lower it when differentiating: the memory of the backward pass grows with it.
    - `adjoint`: how Diffrax differentiates the solve.
    - `progress_meter`: e.g. `diffrax.TqdmProgressMeter()`.
    - `throw`: whether a failed solve raises; if not, its `result` says why, and unreached rows are NaN.

    **Returns:** [`wgf.flows.FlowSolution`][].

    **Raises:** `ValueError` if `taus` do not increase, tolerances or the temperature are negative, a number is not
    finite, a model with tracers comes with an objective that has no first variation, or options do not fit noise;
    `eqx.EquinoxRuntimeError` with the message of [`wgf.flows.RESULTS`][] if the solve fails and `throw=True`.

    Cost: one value and gradient of Q a stage (Tsit5: 6 a step), the working memory of the solver in copies of the
    particles, and one copy a saved τ.

    **Source:** arXiv:2410.23610, equations 2.7 and 3.3; for σ > 0, S. Mei, A. Montanari, P.-M. Nguyen, *A mean field
    view of the landscape of two-layer neural networks*, PNAS 115 (2018).
    """
    if tracers_of(model) and not isinstance(objective, Objective):
        raise ValueError(f"`objective` must be a wgf.Objective for a model with tracers; got {objective!r}.")
    dtype = _dtype(model)
    taus = _check_taus(taus).astype(dtype)
    # Asked of the argument itself: under `jit` a constant that has been through an operation is as good as unknown.
    hot = _is_hot(temperature)
    temperature = not_negative("temperature", temperature).astype(dtype)
    dynamics = dynamics_of(model, temperature)
    noisy = hot and dynamics.noise(model) is not None
    if noisy:
        solver = diffrax.Heun() if solver is None else solver
        controller = diffrax.ConstantStepSize() if controller is None else controller
        check_noise(key, solver, dt0, steady)
    elif hot and tracers_of(model):
        raise ValueError("`model` must have no tracers at `temperature` > 0 where its measure is on a grid: no noise.")
    options = _Options(
        temperature=temperature,
        key=key if noisy else None,
        solver=dynamics.solver() if solver is None else solver,
        controller=_controller(dynamics, model, rtol, atol, taus) if controller is None else controller,
        dt0=None if dt0 is None else jnp.asarray(dt0, dtype),
        steady=None if steady is None else _check_positive("steady", steady).astype(dtype),
        max_steps=at_least("max_steps", max_steps, 1),
        adjoint=adjoint,
        progress_meter=progress_meter,
    )
    if options.dt0 is None and isinstance(options.controller, diffrax.ConstantStepSize):
        raise ValueError("`dt0` must be given with `controller=ConstantStepSize()`; got None.")
    solution = _flow(dynamics, objective, model, taus, options)
    # Outside the compiled solve: a check inside would keep it out of JAX's persistent compilation cache.
    return solution.result.error_if(solution, _failed(solution.result)) if throw else solution


class _Options(eqx.Module):
    temperature: Array
    key: PRNGKeyArray | None
    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController
    dt0: Array | None
    steady: Array | None
    max_steps: int = eqx.field(static=True)
    adjoint: diffrax.AbstractAdjoint
    progress_meter: diffrax.AbstractProgressMeter


def _is_hot(temperature: float | Array) -> bool:
    """Whether a temperature may be above zero: any that is known only at run time may."""
    return is_traced(temperature) or bool(temperature > 0)


def _dtype(model: PyTree):
    leaves = jax.tree.leaves(dynamics_of(model).parameters(model))
    if not leaves:
        raise ValueError(f"`model` must hold at least one array of real numbers to move; got {model!r}.")
    return jnp.result_type(*leaves)


class _StateNorm(eqx.Module):
    """The norm of the parameters alone: tracers and the dissipated objective have no say in the steps."""

    norm: Callable[[PyTree[Array]], Float[Array, ""]]
    structure: Any = eqx.field(static=True)

    def __call__(self, state: State) -> Float[Array, ""]:
        return self.norm(jax.tree.unflatten(self.structure, state.parameters))


class _Steady(eqx.Module):
    """The event that the dissipation is down at a threshold."""

    threshold: Float[Array, ""]

    def __call__(self, tau, state: State, args, **kwargs: Any) -> Bool[Array, ""]:
        dynamics, objective, model = args
        return evaluate(dynamics, objective, state.place(dynamics, model)).dissipation <= self.threshold


@eqx.filter_jit
def _flow(
    dynamics: AbstractDynamics, objective: Callable, model: PyTree, taus: Array, options: _Options
) -> FlowSolution:
    solution = diffrax.diffeqsolve(
        _terms(dynamics, model, taus, options),
        options.solver,
        taus[0],
        taus[-1],
        options.dt0,
        start(dynamics, model),
        (dynamics, objective, model),
        saveat=diffrax.SaveAt(subs=(diffrax.SubSaveAt(ts=taus), diffrax.SubSaveAt(t1=True))),
        stepsize_controller=options.controller,
        event=_event(dynamics, objective, model, taus, options.steady),
        max_steps=options.max_steps,
        adjoint=options.adjoint,
        progress_meter=options.progress_meter,
        throw=False,
    )
    states, reached = _fill(solution)
    models = states.place(dynamics, repeat_model(model, taus.size))
    saved = survey(dynamics, objective, models)
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


def _terms(dynamics: AbstractDynamics, model: PyTree, taus: Array, options: _Options) -> diffrax.AbstractTerm:
    drift = diffrax.ODETerm(field)
    if options.key is None:
        return drift
    assert options.dt0 is not None
    # A tree finer than the steps draws their noise exactly; steps that adapt may become shorter than the first.
    constant = isinstance(options.controller, diffrax.ConstantStepSize)
    noise = noise_term(
        dynamics,
        model,
        start(dynamics, model),
        options.temperature,
        options.key,
        (taus[0], taus[-1]),
        options.dt0 / (2 if constant else 1024),
        options.solver,
    )
    return diffrax.MultiTerm(drift, noise)


def _event(
    dynamics: AbstractDynamics, objective: Callable, model: PyTree, taus: Array, steady: Array | None
) -> diffrax.Event | None:
    if steady is None:
        return None
    begin = evaluate(dynamics, objective, model)
    # A start that is steady already has no dissipation to fall from: stop where what is left is rounding of Q.
    rounding = jnp.finfo(taus.dtype).eps * jnp.abs(begin.objective) / (taus[-1] - taus[0])
    return diffrax.Event(_Steady(jnp.maximum(steady * begin.dissipation, rounding)))


def _fill(solution: diffrax.Solution) -> tuple[State, Bool[Array, " saves"]]:
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


def _controller(dynamics: AbstractDynamics, model: PyTree, rtol, atol, taus) -> diffrax.AbstractStepSizeController:
    rtol, atol = (_check_positive(n, v).astype(_dtype(model)) for n, v in (("rtol", rtol), ("atol", atol)))
    norm = _StateNorm(dynamics.norm(model), jax.tree.structure(dynamics.parameters(model)))
    return dynamics.controller(rtol, atol, norm, taus)


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
