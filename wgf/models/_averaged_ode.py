"""The limit model: the ODE of the averaged encoder in continuous depth."""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._checks import at_least
from ..encoders import AbstractEncoder
from ..measures import AbstractMeasure, Layered, Staged
from ._adjoint import AbstractAdjoint
from ._base import AbstractModel, Batch, check_depths
from ._over_prompts import over_prompts


class AveragedODE(AbstractModel):
    r"""The flow of tokens in continuous depth, \( \dot T(t) = \int g(T(t), \theta)\,\rho(d\theta, t) \), T(0) = H.

    **Arguments:**

    - `encoder`: g; for [`wgf.encoders.Average`][] that is ½ (f + h).
    - `measure`: any measure over depth; for the limit [`wgf.measures.Spectral`][], smooth in depth, or
      [`wgf.measures.Staged`][], a sample of its own at each stage of the depth solve.
    - `solver`: any Diffrax ODE solver; default Tsit5, or the one that a staged measure is made for. An explicit
      Runge–Kutta method at constant steps (the default) is unrolled from its tableau: cheap to compile, and
      differentiable to any order in both modes. All else runs in `diffrax.diffeqsolve`.
    - `steps`: the number of constant steps in depth, Δt = 1/`steps`; with an adaptive controller, its most steps.
    - `controller`: a Diffrax step size controller; `PIDController(rtol, atol)` makes the solve adaptive. Give it the
      outer flow's `rtol` or less: the objective jumps where the number of steps changes, and the flow's own controller
      would spend steps on that.

    Cost: `steps` × stages × M encoder evaluations a prompt. Order: that of the solver, in 1/`steps`. Good values:
    Tsit5 with 2 to 4 steps is at 1e-5 to 1e-7 of the exact depth flow for particles of order one.

    **Raises:** `ValueError` if the solver is no Diffrax solver or `steps` below 1, or either is not what a staged
    measure is made for; a solve that fails under an adaptive
    controller raises in the compiled run with Diffrax's reason.

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
        adaptive = not isinstance(controller, diffrax.ConstantStepSize)
        if isinstance(measure, Staged):
            solver, steps = _staged_solver(measure, solver, steps, adaptive)
        solver = diffrax.Tsit5() if solver is None else solver
        if not isinstance(solver, diffrax.AbstractSolver):
            raise ValueError(f"`solver` must be a Diffrax solver, e.g. diffrax.Tsit5(); got {solver!r}.")
        self.encoder = encoder
        self.measure = measure
        self.tracers = ()
        self.solver = solver
        self.steps = at_least("steps", (256 if adaptive else 3) if steps is None else steps, 1)
        self.controller = controller

    def __call__(self, tokens: Batch) -> Batch:
        """Push prompts `[B, D, N+1]` from depth 0 to 1."""
        constant = isinstance(self.controller, diffrax.ConstantStepSize)
        tableau = self.solver.tableau if isinstance(self.solver, diffrax.AbstractERK) else None
        if constant and isinstance(tableau, diffrax.ButcherTableau):
            return over_prompts(lambda model, tokens: _march(model.field, tableau, model.steps, tokens), self, tokens)
        end = diffrax.SaveAt(t1=True)
        ys = self._solve(self._field_term(), tokens, 0, 1, end, diffrax.DirectAdjoint()).ys
        assert ys is not None
        return ys[0]

    def trajectory(self, tokens: Batch, depths: ArrayLike) -> Float[Array, "depths batch token_dim length"]:
        """The tokens at the given depths, by the solver's own interpolation between its steps.

        **Raises:** `ValueError` if `depths` is not a vector.
        """
        depths = check_depths(depths)
        return jax.vmap(self._dense(self._field_term(), tokens, 0, 1).evaluate)(depths.astype(tokens.dtype))

    def adjoint(self, tokens: Batch, terminal: Callable[[Batch], Batch]) -> "DenseAdjoint":
        """Solve T forward, then p backward along it, both by Diffrax with dense output.

        Accuracy: that of the solver and its interpolation at the model's own `steps`.
        """
        forward = self._dense(self._field_term(), tokens, 0, 1)

        def pull(depth, costates, args):
            _, pullback = jax.vjp(lambda tokens: self.field(depth, tokens), forward.evaluate(depth))
            return -pullback(costates)[0]

        last = terminal(forward.evaluate(jnp.ones((), tokens.dtype)))
        return DenseAdjoint(self.encoder, forward, self._dense(diffrax.ODETerm(pull), last, 1, 0))

    def field(self, depth: ArrayLike, tokens: Batch) -> Batch:
        r"""The right-hand side \( \int g(T, \theta)\,\rho(d\theta, t) \)."""
        particles, weights = self.measure.at(depth)
        return self.encoder.mean(particles, weights, tokens)

    def _field_term(self) -> diffrax.ODETerm:
        return diffrax.ODETerm(lambda depth, tokens, args: self.field(depth, tokens))

    def _dense(self, term: diffrax.ODETerm, start: Batch, t0: int, t1: int) -> diffrax.DenseInterpolation:
        adjoint = diffrax.RecursiveCheckpointAdjoint()
        interpolation = self._solve(term, start, t0, t1, diffrax.SaveAt(dense=True), adjoint).interpolation
        assert interpolation is not None
        return interpolation

    def _solve(self, term, start: Batch, t0: int, t1: int, saveat, adjoint) -> diffrax.Solution:
        constant = isinstance(self.controller, diffrax.ConstantStepSize)
        real = start.dtype.type
        return diffrax.diffeqsolve(
            term,
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
            # Constant steps always arrive; a check would gather what is spread over devices in one place.
            throw=not constant,
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


def _march(field, tableau: diffrax.ButcherTableau, steps: int, start: Batch) -> Batch:
    """Explicit Runge–Kutta at `steps` constant steps from depth 0 to 1.

    Stages run in a loop over the rows of the tableau, so that the field is compiled once; each is checkpointed, so that
    gradients hold the tokens of every stage and the inner workings of one.
    """
    # A last stage without weight in the solution serves error control alone, and there is none here.
    stages = tableau.num_stages - int(tableau.b_sol[-1] == 0)
    nodes = np.concatenate([[0.0], tableau.c])[:stages].astype(start.dtype)
    rows = np.zeros((stages, stages), start.dtype)
    for stage, row in enumerate(tableau.a_lower[: stages - 1], start=1):
        rows[stage, :stage] = row / steps
    solution = (tableau.b_sol[:stages] / steps).astype(start.dtype)

    def step(tokens, index):
        @jax.checkpoint
        def stage(slopes, inputs):
            number, node, row = inputs
            slope = field((index + node) / steps, tokens + jnp.tensordot(row, slopes, 1))
            return slopes.at[number].set(slope), None

        slopes = jnp.zeros((stages, *tokens.shape), tokens.dtype)
        slopes, _ = jax.lax.scan(stage, slopes, (jnp.arange(stages), nodes, rows))
        return tokens + jnp.tensordot(solution, slopes, 1), None

    return jax.lax.scan(step, start, jnp.arange(steps, dtype=start.dtype))[0]


class DenseAdjoint(AbstractAdjoint):
    """T(t) and p(t) of the averaged ODE as dense Diffrax solutions."""

    encoder: AbstractEncoder
    forward: diffrax.DenseInterpolation
    backward: diffrax.DenseInterpolation

    def tokens(self, depth: ArrayLike) -> Batch:
        """T(t) by the solver's interpolation."""
        return self.forward.evaluate(jnp.asarray(depth))

    def costates(self, depth: ArrayLike) -> Batch:
        """p(t) by the solver's interpolation."""
        return self.backward.evaluate(jnp.asarray(depth))

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
