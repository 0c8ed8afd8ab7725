"""The limit model: the ODE of the averaged encoder in continuous depth."""

from collections.abc import Callable, Iterator

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._backend.compiled import compiled
from .._backend.prompt_shares import over_prompts
from .._checks import ENCODER, at_least, instance
from .._display.text import counted
from ..encoders import AbstractEncoder
from ..measures import AbstractMeasure, Layered, Staged
from ..solvers._constant_steps import Field, march, march_densely
from ..solvers._dense_output import DenseOutput, of_diffrax
from ._adjoint import AbstractAdjoint
from ._base import AbstractModel, Batch, check_depths, check_terminal, check_tokens
from ._stage_adjoint import stage_adjoint


class AveragedODE(AbstractModel):
    r"""The flow of tokens in continuous depth, \( \dot T(t) = \int g(T(t), \theta)\,\rho(d\theta, t) \), T(0) = H.

    **Arguments:**

    - `encoder`: g; for [`wgf.encoders.Average`][] that is ½ (f + h).
    - `measure`: any measure over depth. For the limit, use [`wgf.measures.Spectral`][], which is smooth in depth, or
      [`wgf.measures.Staged`][], which has a separate sample at each stage of the depth solve.
    - `solver`: any Diffrax ODE solver. Default: Tsit5, or the solver of a staged measure. An explicit Runge–Kutta
      method with constant steps (the default) runs directly from its tableau. It is cheap to compile, and
      differentiable to any order in forward and reverse mode. Everything else runs in `diffrax.diffeqsolve`.
    - `steps`: the number of constant steps in depth, Δt = 1/`steps`; with an adaptive controller, the most steps.
    - `controller`: a Diffrax step size controller; `PIDController(rtol, atol)` makes the solve adaptive. Use the outer
      flow's `rtol` or less. The objective jumps where the number of depth steps changes, and the flow's own controller
      would spend steps on these jumps.

    **Raises:** `ValueError` if the solver is not a Diffrax solver, `steps` is below 1, or they differ from those
    of a staged measure. A solve that fails under an adaptive controller, or in its root finder, raises at run time with
    Diffrax's reason.

    Cost: `steps` × stages × M encoder evaluations per prompt. Order: that of the solver, in 1/`steps`. Good values:
    Tsit5 with 2 to 4 steps, which is within 1e-5 to 1e-7 of the exact depth flow for particles of order one.

    **Source:** arXiv:2410.23610, equation 3.1.
    """

    encoder: AbstractEncoder
    measure: AbstractMeasure
    tracers: tuple[Layered, ...]
    solver: diffrax.AbstractSolver
    steps: int = eqx.field(static=True)
    controller: diffrax.AbstractStepSizeController

    def __init__(
        self,
        encoder: AbstractEncoder,
        measure: AbstractMeasure,
        *,
        solver: diffrax.AbstractSolver | None = None,
        steps: int | None = None,
        controller: diffrax.AbstractStepSizeController = diffrax.ConstantStepSize(),  # noqa: B008
    ):
        example = "a step size controller of Diffrax, e.g. diffrax.PIDController(1e-4, 1e-6)"
        instance("controller", controller, diffrax.AbstractStepSizeController, example)
        adaptive = not isinstance(controller, diffrax.ConstantStepSize)
        measure = instance("measure", measure, AbstractMeasure, "a measure over depth, e.g. of wgf.measures.Gaussian")
        if isinstance(measure, Staged):
            solver, steps = _staged_solver(measure, solver, steps, adaptive)
        solver = diffrax.Tsit5() if solver is None else solver
        instance("solver", solver, diffrax.AbstractSolver, "a Diffrax solver, e.g. diffrax.Tsit5()")
        self.encoder = instance("encoder", encoder, AbstractEncoder, ENCODER)
        self.measure = measure
        self.tracers = ()
        self.solver = solver
        self.steps = at_least("steps", (256 if adaptive else 3) if steps is None else steps, 1)
        self.controller = controller

    def _facts(self) -> Iterator[str]:
        *facts, size = super()._facts()
        yield from facts
        yield f"{type(self.solver).__name__} with {counted(self.steps, 'step')}"
        yield size

    @compiled
    def __call__(self, tokens: Batch) -> Batch:
        """Push prompts `[B, D, N+1]` from depth 0 to 1."""
        tokens, solver = check_tokens(self, tokens), self._tabulated()
        if solver is not None:

            def push(tokens: Batch, model: AveragedODE) -> Batch:
                return march(model.field, solver, model.steps, tokens)

            return over_prompts(push, len(tokens))(tokens, self)
        ys = self._solve(self.field, tokens, 0, 1, diffrax.SaveAt(t1=True), diffrax.DirectAdjoint()).ys
        assert ys is not None
        return ys[0]

    def trajectory(self, tokens: Batch, depths: ArrayLike) -> Float[Array, "depths batch token_dim length"]:
        """The tokens at the given depths, interpolated by the solver between its steps.

        **Raises:** `ValueError` if `depths` is not a vector, or a depth that is not traced lies outside [0, 1].
        """
        return self._trajectory(check_tokens(self, tokens), check_depths(depths))

    @compiled
    def _trajectory(
        self, tokens: Batch, depths: Float[Array, " depths"]
    ) -> Float[Array, "depths batch token_dim length"]:
        return jax.vmap(self._dense(self.field, tokens, 0, 1).evaluate)(depths)

    @compiled
    def adjoint(self, tokens: Batch, terminal: Callable[[Batch], Batch]) -> "DenseAdjoint":
        """Solve T forward, then p backward along it, both with the solver's own dense output.

        Accuracy: that of the solver and its interpolation at the model's `steps`.

        **Source:** arXiv:2410.23610, section 3.2.
        """
        check_terminal(terminal)
        tokens = check_tokens(self, tokens)
        forward = self._dense(self.field, tokens, 0, 1)

        def pull(depth, costates):
            _, pullback = jax.vjp(lambda tokens: self.field(depth, tokens), forward.evaluate(depth))
            return -pullback(costates)[0]

        last = terminal(forward.evaluate(1.0))
        return DenseAdjoint(self.encoder, forward, self._dense(pull, last, 1, 0))

    @compiled
    def discrete_adjoint(self, tokens: Batch, terminal: Callable[[Batch], Batch]) -> AbstractAdjoint:
        """For a staged measure the adjoint of the depth solve itself, at its stages; otherwise as `adjoint`.

        Cost: one forward and one backward solve.
        """
        if not isinstance(self.measure, Staged):
            return self.adjoint(tokens, terminal)
        check_terminal(terminal)
        return stage_adjoint(self.encoder, self.measure, self.field, check_tokens(self, tokens), terminal)

    def field(self, depth: ArrayLike, tokens: Batch) -> Batch:
        r"""The right-hand side \( \int g(T, \theta)\,\rho(d\theta, t) \)."""
        particles, weights = self.measure.at(depth)
        return self.encoder.mean(particles, weights, tokens)

    def _tabulated(self) -> diffrax.AbstractERK | None:
        """The solver if it takes constant steps with one tableau, else None."""
        if not isinstance(self.controller, diffrax.ConstantStepSize) or not isinstance(
            self.solver, diffrax.AbstractERK
        ):
            return None
        return self.solver if isinstance(self.solver.tableau, diffrax.ButcherTableau) else None

    def _dense(self, field: Field, start: Batch, t0: int, t1: int) -> DenseOutput:
        solver = self._tabulated()
        if solver is not None:
            return march_densely(field, solver, self.steps, start, t0, t1)
        adjoint = diffrax.RecursiveCheckpointAdjoint()
        interpolation = self._solve(field, start, t0, t1, diffrax.SaveAt(dense=True), adjoint).interpolation
        assert interpolation is not None
        return of_diffrax(interpolation, 1 if t0 < t1 else -1)

    def _solve(self, field: Field, start: Batch, t0: int, t1: int, saveat, adjoint) -> diffrax.Solution:
        constant = isinstance(self.controller, diffrax.ConstantStepSize)
        real = start.dtype.type
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda depth, tokens, args: field(depth, tokens)),
            self.solver,
            real(t0),
            real(t1),
            real((t1 - t0) / self.steps) if constant else None,
            start,
            saveat=saveat,
            stepsize_controller=self.controller,
            adjoint=adjoint,
            # One more than the nominal number, because rounding may end the last step just before t1.
            max_steps=self.steps + 1,
            # Constant explicit steps cannot fail, and a check would gather sharded arrays on one device. A root finder
            # can fail at any step size.
            throw=not constant or isinstance(self.solver, diffrax.AbstractImplicitSolver),
        )


def _staged_solver(measure: Staged, solver, steps: int | None, adaptive: bool) -> tuple[diffrax.AbstractERK, int]:
    """The solver and steps of a staged measure; raise `ValueError` if others were asked for."""
    asked = (measure.solver if solver is None else solver, measure.steps if steps is None else steps)
    if adaptive or asked != (measure.solver, measure.steps):
        raise ValueError(
            f"`measure` is staged for {measure.steps} constant steps of {type(measure.solver).__name__}; got "
            f"{type(asked[0]).__name__}, {asked[1]} steps"
            + (
                " with an adaptive controller. Leave out `solver`, `steps` and `controller`."
                if adaptive
                else ". Leave out `solver`, `steps` and `controller`."
            )
        )
    return measure.solver, measure.steps


class DenseAdjoint(AbstractAdjoint):
    """T(t) and p(t) of the averaged ODE, from the dense output of their solves."""

    encoder: AbstractEncoder
    forward: DenseOutput
    backward: DenseOutput

    def tokens(self, depth: ArrayLike) -> Batch:
        """T(t) by the solver's interpolation."""
        return self.forward.evaluate(depth)

    def costates(self, depth: ArrayLike) -> Batch:
        """p(t) by the solver's interpolation."""
        return self.backward.evaluate(depth)

    def pairing(
        self,
        particles: PyTree[Array],
        masses: Float[Array, " count"],
        depth: ArrayLike,
        prompt_weights: Float[Array, " batch"],
    ) -> Float[Array, ""]:
        """Pair the encoder's mean with the adjoint at the same depth."""
        mean = self.encoder.mean(particles, masses, self.tokens(depth))
        return jnp.sum(prompt_weights * jnp.sum(mean * self.costates(depth), axis=(1, 2)))
