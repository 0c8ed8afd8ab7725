"""The results of flows and training runs."""

import warnings
from typing import Any, TypeVar

import diffrax
import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._backend.compat import is_traced
from .._backend.precision import Module
from .._checks import shown

_Solution = TypeVar("_Solution", bound="AbstractSolution")


with warnings.catch_warnings():
    # Diffrax has an empty text for `successful`, and Equinox warns if a subclass changes a text.
    warnings.simplefilter("ignore")

    class RESULTS(diffrax.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
        """How a flow ended: Diffrax's codes, and further causes of failure."""

        successful = "successful"
        not_finite = (
            "The flow stopped being finite: particles or the objective are NaN or infinite. Decrease `rtol` (or a "
            "constant step), or increase the objective's `weight_decay`."
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
            "The run was interrupted (Ctrl-C). All states so far are kept. With a `directory`, the same call resumes."
        )
        out_of_time = (
            "The run reached its `time_limit`. Its states so far are kept. With a `directory`, the same call resumes."
        )


def translate(result: diffrax.RESULTS) -> RESULTS:
    """Diffrax's code as one of [`wgf.flows.RESULTS`][]."""
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


def _is_whole(index: Any) -> bool:
    return hasattr(index, "__index__") and not isinstance(index, bool) and np.ndim(index) == 0


def raise_if(solution: _Solution, failed: Bool[Array, ""]) -> _Solution:
    """Raise with the message of the solution's result: at once, or at run time if the result is traced."""
    if is_traced(failed):
        return solution.result.error_if(solution, failed)
    # Raised here, so that it also works if Equinox's checks are turned off.
    if bool(failed):
        raise eqx.EquinoxRuntimeError(RESULTS[solution.result])
    return solution
