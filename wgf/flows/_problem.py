"""A flow as an initial value problem: state, vector field, solver and step size control."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, PyTree

from .._backend.canonical import canonical
from .._backend.compat import is_traced
from .._backend.precision import Module
from .._checks import finite, holds, instance, not_negative, on_host, positive, random_key, shown
from .._finite import finite_rows
from ..objective import Objective
from ._curves import curves
from ._fits import check_solution
from ._geometry.base import AbstractGeometry, prompt_weights, real_dtype
from ._langevin import check_noise, noise_term
from ._solution import COUNTS, RESULTS, FlowSolution
from ._state import State, field, start
from ._velocity import check_posed, evaluate, geometry_of, tracers_of


class Problem(Module):
    """An objective, the model at the start, the times to save at, and the solver."""

    geometry: AbstractGeometry
    objective: Callable[[Any], Float[Array, ""]]
    model: PyTree
    taus: Float[Array, " saves"]
    temperature: Float[Array, ""]
    key: PRNGKeyArray | None
    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController
    dt0: Float[Array, ""] | None
    steady: Float[Array, ""] | None

    @property
    def args(self) -> tuple[AbstractGeometry, Callable, PyTree]:
        """The arguments of the vector field."""
        return self.geometry, self.objective, self.model

    def start(self) -> State:
        """The state at the first τ."""
        return start(self.geometry, self.model)

    @contextlib.contextmanager
    def as_real(self) -> Iterator[None]:
        """Suppress Diffrax's warning of complex arrays in the model or the objective: the state itself is real."""
        with contextlib.ExitStack() as stack:
            if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(eqx.filter(self.args, eqx.is_array))):
                stack.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", "Complex dtype support in Diffrax")
            yield

    def terms(self) -> diffrax.AbstractTerm:
        """The velocity, and the noise if there is any."""
        drift = diffrax.ODETerm(field)
        if self.key is None:
            return drift
        assert self.dt0 is not None
        # A tree finer than the steps draws their noise exactly. Adaptive steps may become shorter than the first.
        constant = isinstance(self.controller, diffrax.ConstantStepSize)
        noise = noise_term(
            self.geometry,
            self.model,
            self.temperature,
            self.key,
            (self.taus[0], self.taus[-1]),
            self.dt0 / (2 if constant else 1024),
            self.solver,
        )
        return diffrax.MultiTerm(drift, noise)

    def event(self) -> diffrax.Event | None:
        """The event of the steady stop; None without one."""
        if self.steady is None:
            return None
        begin = evaluate(self.geometry, self.objective, self.model)
        # At a steady start the dissipation is zero already: stop below the rounding of Q.
        span = self.taus[-1] - self.taus[0]
        rounding = jnp.finfo(self.taus.dtype).eps * jnp.abs(begin.objective) / span
        return diffrax.Event(_Steady(jnp.maximum(self.steady * begin.dissipation, rounding)))

    def collect(
        self, states: State, reached: Bool[Array, " saves"], stats: dict[str, PyTree], result: RESULTS
    ) -> FlowSolution:
        """The solution from the states at `taus`."""
        models = eqx.filter_vmap(lambda state: state.place(self.geometry, self.model))(states)
        saved = curves(self.geometry, self.objective, models)
        # Rows that were not reached hold the last state after a steady stop. After a failure they are NaN.
        solved = reached | (result == RESULTS.event_occurred)
        # Tracers and particles of no weight do not show in Q.
        is_finite = jnp.all(finite_rows((states, saved)) | ~solved)
        return FlowSolution(
            taus=self.taus,
            models=models,
            objective=saved.objective,
            risk=saved.risk,
            dissipation=saved.dissipation,
            dissipated=states.dissipated,
            outputs=saved.outputs,
            prompt_weights=prompt_weights(self.objective),
            reached=reached,
            # Diffrax counts in the default type of whole numbers.
            stats={name: jnp.asarray(stats[name], jnp.int32) for name in COUNTS},
            result=RESULTS.where(is_finite, result, RESULTS.not_finite),
        )


def initial_value_problem(
    objective: Callable[[Any], Float[Array, ""]],
    model: PyTree,
    taus: ArrayLike | Sequence[float],
    *,
    temperature: float | Array,
    key: PRNGKeyArray | None,
    solver: diffrax.AbstractSolver | None,
    rtol: float | Array,
    atol: float | Array,
    controller: diffrax.AbstractStepSizeController | None,
    dt0: float | Array | None,
    steady: float | Array | None,
) -> Problem:
    """Check the arguments of [`wgf.flow`][] and fill in its defaults.

    **Raises:** `ValueError` as described there.
    """
    check_posed(objective, model)
    if tracers_of(model) and not isinstance(objective, Objective):
        raise ValueError(f"`objective` must be a wgf.Objective for a model with tracers; got {shown(objective)}.")
    if solver is not None:
        instance("solver", solver, diffrax.AbstractSolver, "a Diffrax solver, e.g. diffrax.Tsit5()")
    if controller is not None:
        example = "a step size controller of Diffrax, e.g. diffrax.PIDController(1e-4, 1e-6)"
        instance("controller", controller, diffrax.AbstractStepSizeController, example)
    key = None if key is None else random_key("key", key)
    dtype = _dtype(model)
    taus = _check_taus(taus).astype(dtype)
    check_solution(taus.size, model)
    checked = not_negative("temperature", temperature).astype(dtype)
    # Inside `jit`, an operation turns a constant into a tracer, so the raw argument is tested.
    hot, temperature = _is_hot(temperature), checked
    geometry = geometry_of(model, temperature)
    noisy = hot and geometry.noise(model) is not None
    if noisy:
        solver = diffrax.Heun() if solver is None else solver
        controller = diffrax.ConstantStepSize() if controller is None else controller
        check_noise(key, solver, dt0, steady)
    elif hot and tracers_of(model):
        raise ValueError(
            "`model` must not have tracers at `temperature` > 0 on a grid, which has no noise to give them."
        )
    controller = _controller(geometry, model, rtol, atol, taus) if controller is None else controller
    if dt0 is None and isinstance(controller, diffrax.ConstantStepSize):
        raise ValueError("`dt0` must be given with `controller=ConstantStepSize()`; got None.")
    return Problem(
        geometry=geometry,
        objective=canonical(objective),
        model=model,
        taus=taus,
        temperature=temperature,
        key=key if noisy else None,
        solver=geometry.solver() if solver is None else solver,
        controller=controller,
        dt0=None if dt0 is None else positive("dt0", dt0).astype(dtype),
        steady=None if steady is None else _fraction("steady", steady).astype(dtype),
    )


class _StateNorm(Module):
    """The norm of the parameters alone: tracers and integrals do not influence the steps."""

    norm: Callable[[list[Array]], Float[Array, ""]]

    def __call__(self, state: State) -> Float[Array, ""]:
        return self.norm(state.parameters)


class _Steady(Module):
    """The event that the dissipation has fallen to a threshold."""

    threshold: Float[Array, ""]

    def __call__(self, tau, state: State, args, **kwargs: Any) -> Bool[Array, ""]:
        geometry, objective, model = args
        return evaluate(geometry, objective, state.place(geometry, model)).dissipation <= self.threshold


def _is_hot(temperature: float | Array) -> bool:
    """Whether a temperature may be above zero. One that is known only at run time may be."""
    return is_traced(temperature) or bool(temperature > 0)


def _dtype(model: PyTree):
    return real_dtype(geometry_of(model).parameters(model))


def _controller(geometry: AbstractGeometry, model: PyTree, rtol, atol, taus) -> diffrax.AbstractStepSizeController:
    rtol, atol = (x.astype(_dtype(model)) for x in (_fraction("rtol", rtol), positive("atol", atol)))
    return geometry.controller(rtol, atol, _StateNorm(geometry.norm(model)), taus)


def _fraction(argument: str, value: ArrayLike) -> Float[Array, ""]:
    """Return a positive number as an array; raise unless it is at most 1, if it is known."""
    number = positive(argument, value)
    if not is_traced(number) and number > 1:
        raise ValueError(f"`{argument}` must be at most 1, a share of the whole; got {shown(value)}.")
    return number


def _check_taus(taus: ArrayLike | Sequence[float]) -> Float[Array, " saves"]:
    taus = finite("taus", taus)
    if taus.ndim != 1 or taus.shape[0] < 2:
        raise ValueError(f"`taus` must be a vector of at least two training times; got shape {taus.shape}.")
    known = on_host(taus)
    # The first of them: a list of very many would take seconds.
    got = None if is_traced(taus) else known[:9].tolist()
    return holds(taus, (known[1:] > known[:-1]).all(), "`taus` must increase", got)
