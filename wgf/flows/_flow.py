"""`flow`: gradient flow of a model by one Diffrax solve."""

from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, PyTree

from .._backend.mesh import on_own_mesh
from .._checks import at_least, flag, instance
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
    Any other Equinox module moves by plain gradient flow, \( \dot\theta = -\nabla Q \), in all its inexact arrays,
    complex ones included.
    The function is pure and works under `jit`, `vmap` and `grad`.

    On a [`wgf.measures.Eulerian`][] measure the weights move, by finite volumes. This is an independent solver of the
    PDE.

    A `temperature` σ > 0 adds noise, \( d\theta = v\,d\tau + \sqrt{2\sigma}\,dW \). These mean-field Langevin dynamics
    descend the free energy \( F = Q - \sigma S \), with the entropy \( S = -\int \rho \log \rho \), to the Gibbs law
    \( \rho \propto \exp(-\tfrac1\sigma\,\delta Q/\delta\rho) \). On a grid the PDE gains the diffusion
    \( \sigma\Delta\rho \) instead of noise. The objective reported is Q at any temperature.

    **Arguments:**

    - `objective`: Q, [`wgf.Objective`][], or any function (a module, say) of the model alone.
    - `model`: the start of the flow, at `taus[0]`: any module, or a model of this library, whose `tracers` move too.
    - `taus`: the training times to save at: at least two, increasing. The flow begins at the first: 0 for a new model,
      the last τ of an earlier flow to continue it.
    - `temperature`: σ ≥ 0.
    - `key`: the random key of the noise; needed at σ > 0. The noise of a finite model depends on the key, the times and
      `dt0` alone, and its tracers in the limit have the same. Particles that are interpolated over depth share one
      noise at all depths.
    - `solver`: any Diffrax solver for the outer flow. Default: `Tsit5()`, which suits short times and high accuracy.
      From τ of some hundreds on stability bounds its steps: use [`wgf.flows.RKC`][]. To reach rest at small λ on few
      prompts use [`wgf.flows.RosenbrockW`][]. Diffrax's implicit solvers work with a matrix-free root finder, but were
      slower in every measured case (`benchmarks/verification.py`). With noise and on a grid the default is `Heun()`;
      noise needs a solver of stochastic equations (`Heun()`: order 1 in the particles' paths, 2 in their law).
    - `rtol`, `atol`: tolerances of the step size control, in the norm [`wgf.flows.ParticleNorm`][] (the RMS error of
      the worst particle; for a plain module, the error of the worst parameter). Good values: 1e-3 to 1e-6 in float32,
      where rounding dominates below 1e-6; down to 1e-10 in float64. On a grid `rtol + atol` bounds the error of a step
      in total variation.
    - `controller`: a step size controller. Default: `PIDController(rtol, atol)`; on a grid
      [`wgf.flows.CourantController`][] around it, which keeps masses positive; with noise `ConstantStepSize()`, which
      needs `dt0`. Constant steps `dt0=h` with `solver=diffrax.Euler()` are gradient descent of learning rate h·LM.
    - `dt0`: the first step; automatic by default, needed with noise.
    - `steady`: stop when the dissipation has fallen to this fraction of its initial value, or when Q can no longer
      change by more than its rounding before the last τ. The error of the solve keeps the dissipation up, so choose
      tolerances below the square root of this fraction. Costs one more velocity per step.
    - `max_steps`: the most steps. Lower it for derivatives: the memory of the backward pass grows with it.
    - `adjoint`: how Diffrax differentiates the solve.
    - `progress_meter`: e.g. [`wgf.flows.ProgressBar`][]`()`, or any meter of Diffrax. Default: none.
    - `throw`: whether a failed solve raises. If not, `result` names the cause, and rows that were not reached are NaN.

    **Returns:** [`wgf.flows.FlowSolution`][].

    **Raises:** `ValueError` if `taus` do not increase, tolerances or the temperature are negative, a number is not
    finite (in a known array of the model too), the solution cannot be held in memory, a model with tracers has an
    objective other than [`wgf.Objective`][], or options do not fit noise;
    `eqx.EquinoxRuntimeError` with the message of [`wgf.flows.RESULTS`][] if the solve fails and `throw=True`. Inside a
    `jax.jit` of your own it is JAX that raises, and this message is the last line of its error. With `throw=False`, the
    comparison `solution.result == wgf.flows.RESULTS.successful` is an array to branch on, inside `jit` too.

    Cost: one value and gradient of Q per stage (Tsit5: 6 per step). Memory: the solver's copies of the particles, and
    one copy per saved τ.

    **Source:** arXiv:2410.23610, equations 2.7 and 3.3; for σ > 0, S. Mei, A. Montanari, P.-M. Nguyen, *A mean field
    view of the landscape of two-layer neural networks*, PNAS 115 (2018).
    """
    throw = flag("throw", throw)
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
    solution = _flow(problem, *checked(max_steps, adjoint, progress_meter))
    # Outside the compiled solve: a check inside would keep it out of JAX's persistent compilation cache.
    return raise_if(solution, _failed(solution.result)) if throw else solution


def checked(
    max_steps: Any, adjoint: Any, progress_meter: Any
) -> tuple[int, diffrax.AbstractAdjoint, diffrax.AbstractProgressMeter]:
    """Return the options of a solve that are no part of its problem; raise `ValueError` unless they are valid."""
    instance("adjoint", adjoint, diffrax.AbstractAdjoint, "a Diffrax adjoint, e.g. diffrax.DirectAdjoint()")
    example = "a Diffrax progress meter, e.g. wgf.flows.ProgressBar()"
    instance("progress_meter", progress_meter, diffrax.AbstractProgressMeter, example)
    return at_least("max_steps", max_steps, 1), adjoint, progress_meter


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
