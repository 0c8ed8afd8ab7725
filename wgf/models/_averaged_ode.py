"""The limit model: the ODE of the averaged encoder in continuous depth."""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._backend.compiled import compiled
from .._backend.prompt_shares import over_prompts
from .._checks import ENCODER, at_least, instance
from ..encoders import AbstractEncoder
from ..measures import AbstractMeasure, Layered, Staged
from ..solvers._constant_steps import Field, march, march_densely
from ..solvers._dense_output import DenseOutput, of_diffrax
from ._adjoint import AbstractAdjoint
from ._base import AbstractModel, Batch, check_depths, check_tokens


class AveragedODE(AbstractModel):
    r"""The flow of tokens in continuous depth, \( \dot T(t) = \int g(T(t), \theta)\,\rho(d\theta, t) \), T(0) = H.

    **Arguments:**

    - `encoder`: g; for [`wgf.encoders.Average`][] that is ½ (f + h).
    - `measure`: any measure over depth; for the limit [`wgf.measures.Spectral`][], smooth in depth, or
      [`wgf.measures.Staged`][], a sample of its own at each stage of the depth solve.
    - `solver`: any Diffrax ODE solver; default Tsit5, or the one that a staged measure is made for. An explicit
      Runge–Kutta method at constant steps (the default) is written out from its tableau: cheap to compile, and
      differentiable to any order in both modes. All else runs in `diffrax.diffeqsolve`.
    - `steps`: the number of constant steps in depth, Δt = 1/`steps`; with an adaptive controller, its most steps.
    - `controller`: a Diffrax step size controller; `PIDController(rtol, atol)` makes the solve adaptive. Give it the
      outer flow's `rtol` or less: the objective jumps where the number of steps changes, and the flow's own controller
      would spend steps on that.

    Cost: `steps` × stages × M encoder evaluations a prompt. Order: that of the solver, in 1/`steps`. Good values:
    Tsit5 with 2 to 4 steps is at 1e-5 to 1e-7 of the exact depth flow for particles of order one.

    **Raises:** `ValueError` if the solver is no Diffrax solver or `steps` below 1, or either is not what a staged
    measure is made for. A solve that fails under an adaptive controller, or whose root finder fails, raises in the
    compiled run with Diffrax's reason.

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

    @compiled
    def __call__(self, tokens: Batch) -> Batch:
        """Push prompts `[B, D, N+1]` from depth 0 to 1."""
        tokens, solver = check_tokens(self, tokens), self._tabulated()
        if solver is not None:
            return over_prompts(lambda model, tokens: march(model.field, solver, model.steps, tokens), self, tokens)
        ys = self._solve(self.field, tokens, 0, 1, diffrax.SaveAt(t1=True), diffrax.DirectAdjoint()).ys
        assert ys is not None
        return ys[0]

    def trajectory(self, tokens: Batch, depths: ArrayLike) -> Float[Array, "depths batch token_dim length"]:
        """The tokens at the given depths, by the solver's own interpolation between its steps.

        **Raises:** `ValueError` if `depths` is not a vector, or a depth that is known leaves [0, 1].
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

        Accuracy: that of the solver and its interpolation at the model's own `steps`.
        """
        tokens = check_tokens(self, tokens)
        forward = self._dense(self.field, tokens, 0, 1)

        def pull(depth, costates):
            _, pullback = jax.vjp(lambda tokens: self.field(depth, tokens), forward.evaluate(depth))
            return -pullback(costates)[0]

        last = terminal(forward.evaluate(1.0))
        return DenseAdjoint(self.encoder, forward, self._dense(pull, last, 1, 0))

    def field(self, depth: ArrayLike, tokens: Batch) -> Batch:
        r"""The right-hand side \( \int g(T, \theta)\,\rho(d\theta, t) \)."""
        particles, weights = self.measure.at(depth)
        return self.encoder.mean(particles, weights, tokens)

    def _tabulated(self) -> diffrax.AbstractERK | None:
        """The solver, where it takes constant steps by a tableau."""
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
            # One more than the nominal number: the last step's end may be rounded short of t1.
            max_steps=self.steps + 1,
            # Constant explicit steps always arrive; a check would gather what is spread over devices in one place. A
            # root finder may fail at any step size.
            throw=not constant or isinstance(self.solver, diffrax.AbstractImplicitSolver),
        )


def _staged_solver(measure: Staged, solver, steps: int | None, adaptive: bool) -> tuple[diffrax.AbstractERK, int]:
    """The solver and steps of a staged measure; raise `ValueError` if others were asked for."""
    asked = (measure.solver if solver is None else solver, measure.steps if steps is None else steps)
    if adaptive or asked != (measure.solver, measure.steps):
        raise ValueError(
            f"`measure` is staged for {measure.steps} constant steps of {type(measure.solver).__name__}: leave "
            f"`solver`, `steps` and `controller` out; got {type(asked[0]).__name__}, {asked[1]} steps"
            + (" with an adaptive controller." if adaptive else ".")
        )
    return measure.solver, measure.steps


class DenseAdjoint(AbstractAdjoint):
    """T(t) and p(t) of the averaged ODE by the dense output of their solves."""

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
