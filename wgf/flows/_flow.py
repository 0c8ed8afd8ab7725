"""`flow`: gradient flow of a model by one Diffrax solve."""

from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, PyTree

from .._backend.mesh import on_own_mesh
from .._checks import at_least, instance
from ._problem import Problem, initial_value_problem
from ._solution import RESULTS, FlowSolution, raise_if, translate
from ._state import State


@on_own_mesh
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
    Any other Equinox module moves by plain gradient flow, \( \dot\theta = -\nabla Q \) in all its inexact arrays,
    complex ones included.
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
      bounded by stability from τ of some hundreds on, where [`wgf.flows.RKC`][] takes over; to rest at small λ on few
      prompts [`wgf.flows.RosenbrockW`][] is far ahead of both. Implicit solvers of Diffrax work too, with a matrix-free
      root finder; on no measured case do they pay (`benchmarks/verification.py`). `Heun()` with noise (which takes a
      solver of stochastic equations; order 1 in the particles' paths, 2 in their law) and for a measure on a grid.
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
    instance("adjoint", adjoint, diffrax.AbstractAdjoint, "a Diffrax adjoint, e.g. diffrax.DirectAdjoint()")
    example = "a Diffrax progress meter, e.g. diffrax.TqdmProgressMeter()"
    instance("progress_meter", progress_meter, diffrax.AbstractProgressMeter, example)
    problem = initial_value_problem(
        objective,
        model,
        taus,
        temperature=temperature,
        key=key,
        solver=solver,
        rtol=rtol,
        atol=atol,
        controller=controller,
        dt0=dt0,
        steady=steady,
    )
    solution = _flow(problem, at_least("max_steps", max_steps, 1), adjoint, progress_meter)
    # Outside the compiled solve: a check inside would keep it out of JAX's persistent compilation cache.
    return raise_if(solution, _failed(solution.result)) if throw else solution


@eqx.filter_jit
def _flow(
    problem: Problem, max_steps: int, adjoint: diffrax.AbstractAdjoint, progress_meter: diffrax.AbstractProgressMeter
) -> FlowSolution:
    taus = problem.taus
    with problem.as_real():
        solution = diffrax.diffeqsolve(
            problem.terms(),
            problem.solver,
            taus[0],
            taus[-1],
            problem.dt0,
            problem.start(),
            problem.args,
            saveat=diffrax.SaveAt(subs=(diffrax.SubSaveAt(ts=taus), diffrax.SubSaveAt(t1=True))),
            stepsize_controller=problem.controller,
            event=problem.event(),
            max_steps=max_steps,
            adjoint=adjoint,
            progress_meter=progress_meter,
            throw=False,
        )
    states, reached = _fill(solution)
    return problem.collect(states, reached, solution.stats, translate(solution.result))


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


def _failed(result: RESULTS) -> Bool[Array, ""]:
    return (result != RESULTS.successful) & (result != RESULTS.event_occurred)
