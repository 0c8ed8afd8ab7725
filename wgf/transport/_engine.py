"""The problems of OTT and their solvers, three for a divergence. Imported at the first one, since OTT is heavy."""

# OTT annotates arrays as numbers, and what is optional as if it were always None or never.
# pyright: reportArgumentType=false, reportOptionalOperand=false, reportOptionalSubscript=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportAssignmentType=false

from contextlib import nullcontext
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int
from ott import utils
from ott.geometry.costs import CostFn, SqEuclidean
from ott.geometry.epsilon_scheduler import Epsilon
from ott.geometry.pointcloud import PointCloud
from ott.initializers.linear.initializers import DefaultInitializer
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.acceleration import Momentum
from ott.solvers.linear.sinkhorn import Sinkhorn, SinkhornOutput
from ott.solvers.linear.sinkhorn_lr import LRSinkhorn

from .._backend.compat import mend_ott
from .._backend.precision import Module
from .._checks import at_least, instance
from ._divergence import Divergence, Outputs, Potentials
from ._geometry import GibbsPointCloud
from ._inputs import are_masses, are_weights, as_array, check_positive, check_tau
from ._solver import GibbsSinkhorn

mend_ott(utils)
_Pair = tuple[Array, Array]


class Alone(Module):
    """A cloud and its transport to itself. If it was shifted to mean 0, `mean` is that mean, as a sum of vectors."""

    points: Float[Array, "n dim"]
    mean: tuple[Float[Array, " dim"], ...]
    weights: Float[Array, " n"]
    potential: Float[Array, " n"]
    output: SinkhornOutput
    converged: Bool[Array, ""]


class Engine(Module):
    """The options of transport problems, which become OTT's geometries, problems and solvers.

    Problems of the squared distance, one ε, all mass and no solver of the user's are solved
    by `GibbsSinkhorn`, with clouds shifted to mean 0. Any others are solved by OTT as given.
    """

    epsilon: Float[Array, ""] | Epsilon
    threshold: Float[Array, ""]
    most: Int[Array, ""]
    cost_fn: CostFn
    solver: Sinkhorn | None
    # The length of the lists of errors. Ours have a power of two, so that other limits need no other program.
    max_iterations: int = eqx.field(static=True)
    block: int | None = eqx.field(static=True)
    taus: tuple[float, float] = eqx.field(static=True)
    # Whether this library's geometry and solvers are used.
    is_fast: bool = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        dtype: Any,
        epsilon: Any,
        threshold: ArrayLike,
        max_iterations: int,
        block: int | None,
        *,
        cost_fn: CostFn | None = None,
        solver: Sinkhorn | None = None,
        tau_a: float = 1.0,
        tau_b: float = 1.0,
    ) -> "Engine":
        """Check the options and make them arrays, so that other values need no other program."""
        varies = isinstance(epsilon, Epsilon)
        number = check_positive("epsilon", epsilon.target if varies else epsilon, dtype)
        threshold = check_positive("threshold", threshold, dtype)
        # The errors of all iterations are kept.
        most = at_least("max_iterations", max_iterations, 1, 10**8)
        block = None if block is None else at_least("block", block, 1)
        cost_fn = SqEuclidean() if cost_fn is None else instance("cost_fn", cost_fn, CostFn, "a cost function of OTT")
        if solver is not None:
            solver = jax.tree.map(as_array, instance("solver", solver, Sinkhorn, "a Sinkhorn solver of OTT"))
            if isinstance(solver, LRSinkhorn):
                raise ValueError("`solver` must find potentials; got an LRSinkhorn. Call OTT itself for low ranks.")
        taus = check_tau("tau_a", tau_a), check_tau("tau_b", tau_b)
        is_fast = type(cost_fn) is SqEuclidean and not varies and solver is None and taus == (1, 1)
        return cls(
            Epsilon(number, epsilon.init, epsilon.decay) if varies else number,
            threshold,
            as_array(most),
            cost_fn,
            solver,
            1 << (most - 1).bit_length() if is_fast else most,
            block,
            taus,
            is_fast,
        )

    @property
    def is_balanced(self) -> bool:
        """Whether all mass must move."""
        return self.taus == (1, 1)

    def divergence(self, x: Array, y: Array, a: Array, b: Array, initial: Potentials) -> Divergence:
        """The divergence of two clouds, with an initial guess of their potentials."""
        return self.between(x, a, self.alone(y, b, initial.y_self), initial)

    def alone(self, points: Array, weights: Array, potential: Array) -> Alone:
        """The cloud's transport to itself, with an initial guess of the potential."""
        points, mean = _centred(points, weights) if self.is_fast else (points, ())
        zero = jnp.zeros_like(potential)
        output, (f, _) = self._solve((points, points), (weights, weights), (potential, potential), (zero, zero))
        valid = are_weights(weights) if self.is_balanced else are_masses(weights)
        return Alone(points, mean, weights, f, output, valid & _converged(output))

    def between(self, points: Array, weights: Array, other: Alone, initial: Potentials) -> Divergence:
        """The divergence of a cloud from another whose transport to itself is known."""
        own = self.alone(points, weights, initial.x_self)
        masses = own.weights, other.weights
        # Between nearly equal clouds the potentials are nearly those of the transports to themselves.
        otherwise = own.potential, other.potential
        output, (f, g) = self._solve((own.points, other.points), masses, (initial.x, initial.y), otherwise, False)
        outputs, epsilon = Outputs(output, own.output, other.output), output.geom.epsilon
        value = output.reg_ot_cost - (own.output.reg_ot_cost + other.output.reg_ot_cost) / 2
        if self.is_fast:
            # Different means only add their squared distance.
            value += jnp.sum(sum(mine - theirs for mine, theirs in zip(own.mean, other.mean, strict=True)) ** 2)
        if not self.is_balanced:
            value += epsilon / 2 * (jnp.sum(weights) - jnp.sum(other.weights)) ** 2
        # A value that is NaN must not count as converged, even if the errors are small.
        converged = _converged(output) & own.converged & other.converged & jnp.isfinite(value) & (epsilon > 0)
        converged &= _resolved((f, g), masses, epsilon)
        iterations = jnp.max(jnp.stack([each.n_iters for each in outputs]))
        return Divergence(value, epsilon, converged, iterations, Potentials(f, g, *otherwise), outputs)

    def _solve(
        self, clouds: _Pair, masses: _Pair, start: _Pair, otherwise: _Pair, of_self: bool = True
    ) -> tuple[SinkhornOutput, _Pair]:
        """OTT's output and the potentials, from a start or, if that is not finite, from another one."""
        of_cost = GibbsPointCloud if type(self.cost_fn) is SqEuclidean else PointCloud
        geom = of_cost(*clouds, cost_fn=self.cost_fn, batch_size=self.block, epsilon=self.epsilon)
        # Least masses in place of 0 keep potentials finite everywhere.
        problem = LinearProblem(geom, *(_positive(mass) for mass in masses), *self.taus)
        solver, logs = self._solver(of_self), [geom.epsilon * jnp.log(mass) for mass in (problem.a, problem.b)]
        # OTT's potentials belong to plans, not to their densities with respect to the product of the marginals.
        start, otherwise = ([h + log for h, log in zip(pair, logs, strict=True)] for pair in (start, otherwise))
        with nullcontext() if self.is_fast else jax.numpy_rank_promotion("allow"):  # OTT promotes ranks.
            if type(solver.initializer) is not DefaultInitializer:
                otherwise = solver.initializer(problem, lse_mode=True)
            init = tuple(_finite_or(*pair) for pair in zip(otherwise, start, strict=True))
            output = _run(solver, problem, init if solver.lse_mode else tuple(map(geom.scaling_from_potential, init)))
        output = jax.tree.map(jnp.asarray, output)  # OTT's number of inner iterations is none.
        return output, tuple(jax.lax.stop_gradient(h - log) for h, log in zip(output.potentials, logs, strict=True))

    def _solver(self, of_self: bool) -> Sinkhorn:
        if self.is_fast:
            return GibbsSinkhorn(self.threshold, self.max_iterations, self.most, of_self)
        solver = self.solver or Sinkhorn(threshold=self.threshold, max_iterations=self.max_iterations)
        children, options = solver.tree_flatten()
        if of_self:
            # As in OTT's own divergences: alternating updates converge slowly between a cloud and itself.
            options |= {"parallel_dual_updates": True, "momentum": Momentum(start=0, value=0.5), "anderson": None}
        if not self.is_balanced:
            # OTT's unbalanced potentials are not optimal for its cost (0.6.0), so their own derivative counts.
            options |= {"use_danskin": False}
        return type(solver).tree_unflatten(options, children)


def _run(solver: Sinkhorn, problem: LinearProblem, init: _Pair) -> SinkhornOutput:
    if not solver.use_danskin:
        return solver(problem, init)
    # By the envelope theorem only the cost of optimal potentials has a derivative, not the iteration.
    output = solver(jax.lax.stop_gradient(problem), init)
    return output.set_cost(problem, solver.lse_mode, True).set(ot_prob=problem)


def _centred(points: Array, weights: Array) -> tuple[Array, tuple[Array, Array]]:
    """The points around 0, and their mean as a sum of two vectors."""
    rough = weights @ points
    points = points - rough[None]
    # The mean of points far from 0 is only exact to their own spacing, so the remaining mean is subtracted as well.
    rest = weights @ points
    return points - rest[None], (rough, rest)


def _positive(weights: Array) -> Array:
    """The weights, at least the smallest normal number, with the derivative of the identity."""
    return weights + jax.lax.stop_gradient(jnp.maximum(weights, jnp.finfo(weights.dtype).tiny) - weights)


def _converged(output: SinkhornOutput) -> Bool[Array, ""]:
    """Whether the last error is below the threshold. OTT also says so of an iteration that ended at infinity."""
    last = jnp.sum(output.errors != -1) - 1
    return output.errors[last] <= output.threshold


def _resolved(potentials: _Pair, masses: _Pair, epsilon: Array) -> Bool[Array, ""]:
    """Whether potentials are so small that their sums are exact to a hundredth of ε at all points with mass."""
    f, g = (jnp.max(jnp.where(mass > 0, jnp.abs(h), 0)) for h, mass in zip(potentials, masses, strict=True))
    return (f + g) * jnp.finfo(epsilon.dtype).eps <= 0.01 * epsilon


def _finite_or(otherwise: Array, potential: Array) -> Array:
    return jnp.where(jnp.all(jnp.isfinite(potential)), potential, otherwise)
