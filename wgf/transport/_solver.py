"""OTT's Sinkhorn solver, with an iteration that multiplies by a kernel and chooses its own relaxation."""

# OTT annotates arrays as numbers, and what is optional as if it were always None or never.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportIncompatibleMethodOverride=false

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn, SinkhornOutput, iterations

from ._dual import optimal_value
from ._geometry import GibbsPointCloud
from ._relaxed import relaxed
from ._state import State
from ._symmetric import symmetric


@jax.tree_util.register_pytree_node_class
class GibbsSinkhorn(Sinkhorn):
    """OTT's solver for balanced problems of a `GibbsPointCloud` with any weights.

    One iteration of OTT's loop is all iterations with one kernel, each of two matrix-vector products. When scalings are
    about to leave the range of floating-point numbers, they are absorbed in the potentials. Then one iteration
    is made in logarithms, and the next kernel is computed (B. Schmitzer, arXiv:1610.06519).

    - `threshold`: the L1 error of both marginals together at which it stops.
    - `max_iterations`: the length of the list of errors, which is part of the program.
    - `most`: the most iterations, at most `max_iterations`. It may be an array.
    - `of_self`: whether the problems are of a cloud to itself, for which the symmetric iteration is faster.

    The value has first derivatives, by the envelope theorem; the potentials have none.
    """

    def __init__(
        self,
        threshold: ArrayLike = 1e-3,
        max_iterations: int = 2000,
        most: ArrayLike | None = None,
        of_self: bool = False,
    ):
        options = {"inner_iterations": 1, "use_danskin": False}
        super().__init__(threshold=threshold, max_iterations=max_iterations, **options)
        self.most = max_iterations if most is None else most
        self.of_self = of_self

    def __call__(
        self, ot_prob: LinearProblem, init: tuple[Array, Array] | None = None, **kwargs: Any
    ) -> SinkhornOutput:
        """Solve a problem, from OTT's potentials if they are given."""
        init = self.initializer(ot_prob, lse_mode=True, **kwargs) if init is None else init
        out = iterations(*jax.lax.stop_gradient((ot_prob, self, init)))
        geom, (f, g) = ot_prob.geom, _relative(ot_prob, out.potentials)
        value = out.reg_ot_cost, geom.x, geom.y, ot_prob.a, ot_prob.b, f, g, geom.epsilon
        return out.set(reg_ot_cost=optimal_value(*value, geom._batch_size), ot_prob=ot_prob)

    def init_state(self, ot_prob: LinearProblem, init: tuple[Array, Array]) -> State:
        """The state before the first kernel."""
        infinite = jnp.asarray(jnp.inf, ot_prob.dtype)
        errors = jnp.full(self.max_iterations, -1, ot_prob.dtype)
        return State(*_relative(ot_prob, init), infinite, jnp.asarray(0), errors, jnp.asarray(True))

    def one_iteration(
        self, ot_prob: LinearProblem, state: State, iteration: ArrayLike, compute_error: ArrayLike
    ) -> State:
        """All iterations with one kernel."""
        del iteration, compute_error
        # Least masses are those that stand for 0.
        a, b = (jnp.where(mass > jnp.finfo(mass.dtype).tiny, mass, 0) for mass in (ot_prob.a, ot_prob.b))

        def with_kernel(geom, state):
            if self.of_self:
                zero = jnp.zeros_like(a)
                return symmetric(geom.kernel(zero, zero), a, state, self.threshold, self.most)
            state = jax.lax.cond(state.inside, lambda state: state, lambda state: _log_step(geom, a, b, state), state)
            return relaxed(geom.kernel(state.f, state.g), a, b, state, self.threshold, self.most)

        return ot_prob.geom.on_device(with_kernel, state)

    def _continue(self, state: State, iteration: ArrayLike) -> Bool[Array, ""]:
        del iteration
        finite = jnp.all(jnp.isfinite(state.f)) & jnp.all(jnp.isfinite(state.g))
        return state.unfinished(self.threshold, self.most) & finite

    def output_from_state(self, ot_prob: LinearProblem, state: State) -> SinkhornOutput:
        """OTT's output."""
        return SinkhornOutput(
            _absolute(ot_prob, (state.f, state.g)),
            errors=state.errors,
            reg_ot_cost=jnp.sum(ot_prob.a * state.f) + jnp.sum(ot_prob.b * state.g),
            threshold=jnp.asarray(self.threshold),
            converged=state.error <= self.threshold,
            inner_iterations=1,
        )

    def tree_flatten(self):
        """What may be an array, and what is part of a program."""
        return [self.threshold, self.most], {"max_iterations": self.max_iterations, "of_self": self.of_self}

    @classmethod
    def tree_unflatten(cls, aux_data, children):
        """The inverse."""
        threshold, most = children
        return cls(threshold, most=most, **aux_data)


def _log_step(geom: GibbsPointCloud, a: Array, b: Array, state: State) -> State:
    """One iteration in logarithms, whose error is not measured. NaN remains NaN, and ends the loop."""
    epsilon = geom.epsilon
    g, _ = geom.apply_lse_kernel(state.f + epsilon * jnp.log(a), state.g, epsilon, axis=0)
    f, _ = geom.apply_lse_kernel(state.f, epsilon * jnp.log(b) - g, epsilon, axis=1)
    return state.iterated(state.error, False)._replace(f=-f, g=-g)


def _absolute(ot_prob, potentials):
    """OTT's potentials, of plans, from those of densities with respect to the product of the marginals."""
    return tuple(h + log for h, log in zip(potentials, _logs(ot_prob), strict=True))


def _relative(ot_prob, potentials):
    """The inverse."""
    return tuple(h - log for h, log in zip(potentials, _logs(ot_prob), strict=True))


def _logs(ot_prob):
    masses = (jnp.maximum(mass, jnp.finfo(mass.dtype).tiny) for mass in (ot_prob.a, ot_prob.b))
    return [ot_prob.epsilon * jnp.log(mass) for mass in masses]
