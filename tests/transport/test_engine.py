"""OTT is the engine: its outputs, costs, schedules, solvers and unbalanced problems, and what they share with ours."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import ott.utils
import pytest
from helpers import bound
from jax.interpreters import batching
from ott.geometry.costs import PNormP, SqEuclidean
from ott.geometry.epsilon_scheduler import Epsilon
from ott.geometry.pointcloud import PointCloud
from ott.solvers.linear.acceleration import Momentum
from ott.solvers.linear.sinkhorn import Sinkhorn, SinkhornOutput
from ott.solvers.linear.sinkhorn_lr import LRSinkhorn
from ott.tools.sinkhorn_divergence import sinkhorn_divergence as ott_divergence

from wgf.transport import conditional_divergence, divergence_curve, sinkhorn_divergence

N, M, DIM, EPSILON, TIGHT = 14, 11, 3, 0.5, bound(1e-8, 1e-5)
CLOSE = bound(1e-6, 1e-4)
SOLVER = Sinkhorn(threshold=TIGHT, max_iterations=20000)
WAYS = {
    "cost": {"cost_fn": PNormP(1.5)},
    "cost in blocks": {"cost_fn": PNormP(1.5), "block": 4},
    "schedule": {"epsilon": Epsilon(EPSILON, init=10.0, decay=0.9)},
    "solver": {"solver": SOLVER},
    "solver in blocks": {"solver": SOLVER, "block": 4},
    "solver of scalings": {"solver": Sinkhorn(threshold=TIGHT, max_iterations=20000, lse_mode=False)},
    "solver with momentum": {"solver": Sinkhorn(threshold=TIGHT, max_iterations=20000, momentum=Momentum(value=1.5))},
    "unbalanced": {"tau_a": 0.9, "tau_b": 0.9},
    "unbalanced on one side": {"tau_b": 0.95},
}


def solve(problem, **options):
    x, y, a, b = problem
    options = {"epsilon": EPSILON, "threshold": TIGHT, "max_iterations": 20000, **options}
    return sinkhorn_divergence(x, y, x_weights=a, y_weights=b, **options)


def by_ott(problem, *, cost_fn=None, epsilon=EPSILON, tau_a=1.0, tau_b=1.0, **_):
    """OTT's own divergence, of plain point clouds."""
    x, y, a, b = problem
    options = {"threshold": TIGHT, "max_iterations": 20000, "tau_a": tau_a, "tau_b": tau_b}
    with jax.numpy_rank_promotion("allow"):
        value, out = ott_divergence(PointCloud, x, y, a=a, b=b, cost_fn=cost_fn, epsilon=epsilon, solve_kwargs=options)
    assert all(out.converged)
    return value


@pytest.mark.parametrize("way", WAYS)
def test_what_is_ott_s_has_the_value_of_ott(way, problem):
    found = solve(problem, **WAYS[way])
    assert bool(found.converged)
    np.testing.assert_allclose(found.value, by_ott(problem, **WAYS[way]), rtol=CLOSE)
    np.testing.assert_allclose(found.epsilon, EPSILON, rtol=1e-6)


@pytest.mark.parametrize("way", ["schedule", "solver", "solver in blocks", "solver of scalings"])
def test_our_solver_has_the_value_and_the_gradient_of_ott_s(way, problem):
    def value(x, options):
        return solve((x, *problem[1:]), **options).value

    x = problem[0]
    ours, slope = jax.value_and_grad(value)(x, {})
    theirs, other = jax.value_and_grad(value)(x, WAYS[way])
    np.testing.assert_allclose(ours, theirs, rtol=CLOSE)
    np.testing.assert_allclose(slope, other, rtol=10 * CLOSE, atol=10 * CLOSE)


@pytest.mark.parametrize("way", ["cost", "unbalanced"])
def test_gradients_of_other_problems_are_those_of_finite_differences(way, problem):
    x, *rest = problem

    @jax.jit
    def value(step):
        return solve((x + step * jnp.sin(x), *rest), **WAYS[way]).value

    step = bound(1e-4, 3e-2)
    difference = (value(step) - value(-step)) / (2 * step)
    with jax.numpy_rank_promotion("allow"):
        np.testing.assert_allclose(jax.grad(value)(0.0), difference, rtol=bound(1e-5, 1e-2))


@pytest.mark.parametrize("way", [{}, {"block": 4}, WAYS["solver"]], ids=["ours", "ours in blocks", "OTT's"])
def test_outputs_are_ott_s_and_their_plans_have_the_marginals(way, problem):
    x, y, a, b = problem
    found = solve(problem, **way)
    sizes = zip(found.ot, ((x, y, a, b), (x, x, a, a), (y, y, b, b)), strict=True)
    for output, (p, q, row, column) in sizes:
        assert isinstance(output, SinkhornOutput)
        assert bool(output.converged)
        assert output.geom.shape == (len(p), len(q))
        plan = output.matrix
        np.testing.assert_allclose(plan.sum(1), row, atol=10 * TIGHT)
        np.testing.assert_allclose(plan.sum(0), column, atol=10 * TIGHT)
        np.testing.assert_allclose(output.apply(q.T, axis=1).T, plan @ q, atol=CLOSE)
        # OTT lists the errors of iterations; -1 marks those that were not made.
        made = np.asarray(output.errors)[: int(output.n_iters) // int(output.inner_iterations)]
        assert made[-1] <= TIGHT
        assert np.all(np.asarray(output.errors)[len(made) :] == -1)
    np.testing.assert_allclose(
        found.ot.between.primal_cost, (found.ot.between.matrix * found.ot.between.geom.cost_matrix).sum(), rtol=CLOSE
    )


@pytest.mark.parametrize("way", [{}, WAYS["cost"]], ids=["ours", "cost"])
def test_results_are_trees_of_arrays(way, problem):
    found = jax.jit(lambda: jax.tree.map(lambda leaf: leaf[None], solve(problem, **way)))()
    assert found.ot.between.geom.x.shape == (1, N, DIM)


def test_points_of_weight_zero_have_finite_potentials_in_ott_s_outputs_too(problem):
    x, y, a, b = problem
    a = a.at[0].set(0)
    a = a / a.sum()
    for options in ({}, WAYS["solver"]):
        found, fewer = solve((x, y, a, b), **options), solve((x[1:], y, a[1:], b), **options)
        assert bool(found.converged)
        assert all(bool(jnp.all(jnp.isfinite(h))) for output in found.ot for h in output.potentials)
        np.testing.assert_allclose(found.value, fewer.value, rtol=CLOSE)
        np.testing.assert_allclose(found.ot.between.matrix[0], 0, atol=1e-30)


@pytest.mark.parametrize("way", [{}, WAYS["cost"], WAYS["solver"]], ids=["ours", "cost", "solver"])
def test_curves_and_depths_take_the_options_of_ott(way, problem):
    x, y, a, b = problem
    clouds = jnp.stack([x, x + 0.01 * jnp.sin(x)])
    each = [solve((cloud, y, a, b), **way) for cloud in clouds]
    values = [found.value for found in each]
    options = {"epsilon": EPSILON, "threshold": TIGHT, "max_iterations": 20000, **way}
    curve = divergence_curve(clouds, y, weights=jnp.stack([a, a]), reference_weights=b, **options)
    np.testing.assert_allclose(curve.value, values, rtol=10 * CLOSE)
    assert int(curve.iterations[1]) < int(each[1].iterations)
    assert (curve.ot.x_self.geom.x.shape, curve.ot.y_self.geom.x.shape) == ((2, N, DIM), (M, DIM))
    half, weights = jnp.full(2, 0.5), {"x_weights": jnp.stack([a, a]), "y_weights": jnp.stack([b, b])}
    depths = conditional_divergence(clouds, jnp.stack([y, y]), half, **weights, **options)
    np.testing.assert_allclose(depths.value, sum(values) / 2, rtol=10 * CLOSE)
    assert depths.ot.between.geom.x.shape == (2, N, DIM)
    assert bool(jnp.all(curve.converged))
    assert bool(depths.converged)


def test_a_start_saves_iterations_of_ott_too(problem):
    found = solve(problem, **WAYS["solver"])
    warm = solve(problem, **WAYS["solver"], initial=found.potentials)
    assert int(warm.iterations) < int(found.iterations) / 2


def test_masses_of_unbalanced_transport_may_differ(problem):
    x, y, a, b = problem
    found = solve((x, y, 2 * a, b), tau_a=0.9, tau_b=0.9)
    np.testing.assert_allclose(found.value, by_ott((x, y, 2 * a, b), tau_a=0.9, tau_b=0.9), rtol=CLOSE)
    assert bool(found.converged)


class Diverging(Sinkhorn):
    """A solver that ends at once at an infinite error, of which OTT says that it has converged."""

    def lse_step(self, ot_prob, state, iteration):
        return state.set(potentials=tuple(jnp.full_like(h, jnp.inf) for h in state.potentials))


def test_an_iteration_that_ended_at_infinity_has_not_converged(problem):
    jax.tree_util.register_pytree_node_class(Diverging)
    assert not bool(solve(problem, solver=Diverging()).converged)


BAD = {
    "cost": ({"cost_fn": "euclidean"}, "`cost_fn` must be a cost function of OTT; got 'euclidean'"),
    "cost class": ({"cost_fn": SqEuclidean}, r"`cost_fn` must be a cost function of OTT; .* Call the class: SqEucl"),
    "solver": ({"solver": 3}, "`solver` must be a Sinkhorn solver of OTT; got 3"),
    "low rank": ({"solver": LRSinkhorn(rank=2)}, "`solver` must find potentials; got an LRSinkhorn"),
    "τ of 0": ({"tau_a": 0.0}, "`tau_a` must be a number above 0 and at most 1, not traced; got 0.0"),
    "τ above 1": ({"tau_b": 1.5}, "`tau_b` must be a number above 0 and at most 1, not traced; got 1.5"),
    "ε": ({"epsilon": Epsilon(-1.0)}, "`epsilon` must be positive and finite; got -1.0"),
    "no mass": ({"tau_a": 0.9, "x_weights": jnp.zeros(N)}, "`x_weights` must be non-negative with a positive, finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_ott_s_is_refused(case, problem, unchecked):
    changes, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        sinkhorn_divergence(*problem[:2], **{"epsilon": EPSILON, **changes})


def test_ott_still_needs_what_jax_has_dropped():
    """If this fails, delete `mend_ott` of `wgf._backend.compat`, its call and this test."""
    assert "is_vmappable" in inspect.getsource(ott.utils)
    assert not hasattr(batching, "is_vmappable")
