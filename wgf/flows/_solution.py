"""What a flow or a training run returns."""

import warnings
from typing import TypeVar

import diffrax
import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._backend.compat import is_traced
from .._backend.precision import Module

_Solution = TypeVar("_Solution", bound="AbstractSolution")


with warnings.catch_warnings():
    # Diffrax has no text for `successful`, and Equinox warns of one that differs from it.
    warnings.simplefilter("ignore")

    class RESULTS(diffrax.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
        """How a flow ended: Diffrax's codes, and what it does not tell apart."""

        successful = "successful"
        not_finite = (
            "The flow stopped being finite: particles or the objective are NaN or infinite. Tighten `rtol` (or lower "
            "the step of a constant step size), or raise the objective's `weight_decay`."
        )
        stalled = (
            "The flow ran out of steps before the last of `taus`. Raise `max_steps`, loosen `rtol`, or take "
            "`solver=wgf.flows.RKC()` for long times (see `stats` for the steps accepted and rejected)."
        )
        dt_min = (
            "The steps fell below the spacing of numbers in τ after the last τ that was reached: the velocity is NaN "
            "or infinite there, or jumps. Raise the objective's `weight_decay`; with an adaptive controller in the "
            "model's depth solve, tighten it or take constant `steps`."
        )
        stiff = (
            "The flow ran out of steps because it is stiff: they are as long as an explicit method stays stable with, "
            "and accuracy would allow longer ones. Take `solver=wgf.flows.RKC()`."
        )
        too_tight = (
            "The tolerance is below what the numbers resolve: `rtol` is less than ten times their spacing. Loosen "
            "`rtol` (1e-6 at the least in float32), or compute in float64 "
            "(`jax.config.update('jax_enable_x64', True)`)."
        )
        interrupted = (
            "The run was interrupted (Ctrl-C). What is done is kept; with a `directory`, the same call goes on."
        )
        out_of_time = (
            "The run reached its `time_limit`. What is done is kept; with a `directory`, the same call goes on."
        )


def translate(result: diffrax.RESULTS) -> RESULTS:
    """Diffrax's code as ours."""
    ours = RESULTS.promote(result)
    ours = RESULTS.where(ours == RESULTS.max_steps_reached, RESULTS.stalled, ours)
    return RESULTS.where(ours == RESULTS.dt_min_reached, RESULTS.dt_min, ours)


class AbstractSolution(Module):
    """Models along a run, with their objective, risk and dissipation."""

    models: eqx.AbstractVar[PyTree]
    objective: eqx.AbstractVar[Float[Array, " saves"]]
    risk: eqx.AbstractVar[Float[Array, " saves"]]
    dissipation: eqx.AbstractVar[Float[Array, " saves"]]
    outputs: eqx.AbstractVar[Float[Array, "saves batch *classes"]]
    prompt_weights: eqx.AbstractVar[Float[Array, " batch"]]
    result: eqx.AbstractVar[RESULTS]

    def model_at(self, index: int) -> PyTree:
        """The model at one save; negative indices count from the last.

        **Raises:** `ValueError` if there is no such save.
        """
        saves = self.objective.shape[0]
        if not is_traced(index) and not -saves <= index < saves:
            raise ValueError(f"`index` must be one of {saves} saves, {-saves} to {saves - 1}; got {index}.")
        return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, self.models)


class FlowSolution(AbstractSolution):
    r"""A gradient flow at the saved times.

    - `taus`: the training times τ, `[saves]`.
    - `models`: the models, every array with leading axis `[saves]` (use `model_at` or `jax.vmap`).
    - `objective`, `risk`: Q and R, `[saves]`.
    - `dissipation`: \( \int \|v\|^2 d\rho = -dQ/d\tau \), `[saves]`.
    - `dissipated`: its integral from the first τ, \( Q(\tau_0) - Q(\tau) \) but for the solver's error, `[saves]`. At a
      temperature above zero both are of v alone where particles feel noise, which makes Q rise as well; on a grid they
      are of the free energy \( F = Q - \sigma S \), with `models.measure.entropy()` for S.
    - `outputs`: the readout for every prompt, `[saves, B]`; `prompt_weights`: the data measure's weights. An
      objective that is a plain function has no prompts (B = 0), and all of it counts as risk.
    - `reached`: whether the solve reached each τ. After a steady-state stop later rows hold the steady model; after a
      failure they are NaN.
    - `stats`: steps taken, accepted and rejected.
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


def raise_if(solution: _Solution, failed: Bool[Array, ""]) -> _Solution:
    """Raise with the message of the solution's result: at once, or as the program runs where the result is traced."""
    if is_traced(failed):
        return solution.result.error_if(solution, failed)
    # By ourselves, so that it does even where Equinox's checks are turned off.
    if bool(failed):
        raise eqx.EquinoxRuntimeError(RESULTS[solution.result])
    return solution
