"""Sinkhorn's iteration against ott, finite differences and itself: whole and in blocks, cold and warm."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, promotion
from ott.geometry.pointcloud import PointCloud
from ott.tools.sinkhorn_divergence import sinkhorn_divergence as ott_divergence

from wgf.transport import divergence_curve, epsilon_from_scale, sinkhorn_divergence

divergence = eqx.filter_jit(sinkhorn_divergence)
slow = pytest.mark.slow
EPSILON, TIGHT = jnp.asarray(0.3), bound(1e-8, 1e-5)


def weighted(key, n, dim, scale=1.0):
    """Points with weights that differ, the last of them 0."""
    points, weights = jax.random.normal(key, (n, dim)), jax.random.uniform(jax.random.fold_in(key, 1), (n,))
    weights = weights.at[-1].set(0)
    return scale * points, weights / jnp.sum(weights)


@pytest.fixture(scope="module")
def problem():
    """Two clouds of other sizes, spreads and means, with weights."""
    (x, a), (y, b) = weighted(jax.random.key(0), 30, 3), weighted(jax.random.key(1), 47, 3, 1.4)
    return x, y + 0.5, a, b


def solve(problem, *, threshold=TIGHT, **options):
    x, y, a, b = problem
    return divergence(x, y, epsilon=EPSILON, x_weights=a, y_weights=b, threshold=threshold, **options)


@pytest.fixture(scope="module")
def solved(problem):
    return solve(problem)


@pytest.mark.parametrize("epsilon", [0.3, *(pytest.param(e, marks=slow) for e in (0.02, 5.0, 300.0))])
def test_values_are_those_of_ott(epsilon, problem):
    x, y, a, b = problem
    found = divergence(x, y, epsilon=jnp.asarray(epsilon), x_weights=a, y_weights=b, threshold=TIGHT)
    options = {"threshold": TIGHT, "max_iterations": 20000}
    with promotion():
        theirs, out = ott_divergence(PointCloud, x, y, a=a, b=b, epsilon=epsilon, solve_kwargs=options)
    assert all(out.converged)
    assert bool(found.converged)
    np.testing.assert_allclose(found.value, theirs, rtol=bound(1e-7, 1e-5))


def test_the_plans_have_the_marginals(problem, solved):
    x, y, a, b = problem
    x, y, potentials = x - (a @ x)[None], y - (b @ y)[None], solved.potentials
    for p, q, f, g, row, column in (
        (x, y, potentials.x, potentials.y, a, b),
        (x, x, potentials.x_self, potentials.x_self, a, a),
        (y, y, potentials.y_self, potentials.y_self, b, b),
    ):
        cost = jnp.sum((p[:, None] - q[None]) ** 2, axis=-1)
        plan = row[:, None] * column[None] * jnp.exp((f[:, None] + g[None] - cost) / EPSILON)
        error = jnp.sum(jnp.abs(plan.sum(1) - row)) + jnp.sum(jnp.abs(plan.sum(0) - column))
        assert error <= TIGHT * bound(1.01, 1.5), error


@pytest.mark.parametrize("block", [8, *(pytest.param(rows, marks=slow) for rows in (1, 29))])
def test_blocks_change_nothing(block, problem, solved):
    found = solve(problem, block=block)
    np.testing.assert_allclose(found.value, solved.value, rtol=bound(1e-9, 1e-5))
    np.testing.assert_allclose(found.potentials.x, solved.potentials.x, rtol=bound(1e-5, 1e-4), atol=bound(1e-6, 1e-4))
    assert bool(found.converged)


@slow
def test_a_kernel_out_of_range_is_iterated_in_logarithms(problem):
    """Tails 40 times as far as the other cloud reaches: the kernel's last row is 0 in floating point."""
    x, y, a, b = problem
    far = x.at[0].set(jnp.array([40.0, 0.0, 0.0])), y, a, b
    found, blocked = solve(far), solve(far, block=7)
    x, y, a, b = far
    options = {"threshold": TIGHT, "max_iterations": 20000}
    with promotion():
        theirs, _ = ott_divergence(PointCloud, x, y, a=a, b=b, epsilon=EPSILON, solve_kwargs=options)
    assert bool(found.converged)
    np.testing.assert_allclose(found.value, theirs, rtol=bound(1e-9, 1e-5))
    np.testing.assert_allclose(blocked.value, theirs, rtol=bound(1e-9, 1e-5))
    single = solve(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), far), threshold=1e-4)
    np.testing.assert_allclose(single.value, theirs, rtol=1e-4)
    assert bool(single.converged)


@slow
def test_over_relaxation_saves_most_iterations_of_a_hard_problem():
    """ott makes the same iteration plainly; the count is to the ten, and of the same L1 error."""
    x, y = (jax.random.normal(k, (200, 2)) for k in jax.random.split(jax.random.key(2)))
    y = y * jnp.array([[3.0, 1.0]])
    epsilon, options = epsilon_from_scale(x), {"threshold": 1e-5, "max_iterations": 20000}
    found = divergence(x, y, epsilon=epsilon, threshold=1e-5, max_iterations=5000)
    with promotion():
        _, plain = ott_divergence(PointCloud, x, y, epsilon=epsilon, solve_kwargs=options)
    assert bool(found.converged)
    assert bool(plain.converged[0])
    assert int(found.iterations) < int(plain.n_iters[0]) / 2, (found.iterations, plain.n_iters)


def test_a_self_transport_contracts_alike_for_every_epsilon(problem):
    x, _, a, _ = problem
    for epsilon in (1e-4, 1e-2, 1.0, 1e2):
        found = divergence(x, x, epsilon=jnp.asarray(epsilon), x_weights=a, y_weights=a, threshold=bound(1e-9, 1e-5))
        assert int(found.iterations) <= 20, (epsilon, found.iterations)
        assert bool(found.converged)


@pytest.mark.parametrize("block", [None, pytest.param(9, marks=slow)])
def test_gradients_are_those_of_finite_differences(block, problem):
    x, y, a, b = problem
    a, b = (jnp.where(w > 0, w, 0.01) for w in (a, b))
    # Mass is only moved: the potentials are known up to a constant.
    even = jnp.linspace(-1, 1, len(a)) * a.min()
    odd = jnp.cos(3 * jnp.arange(len(b))) * b.min()
    ways = (jnp.sin(x), jnp.cos(2 * y), even - even.mean(), odd - odd.mean(), jnp.asarray(0.1))
    a, b = a / a.sum(), b / b.sum()

    @jax.jit
    def value(steps):
        moved = [leaf + s * way for leaf, s, way in zip((x, y, a, b, EPSILON), steps, ways, strict=True)]
        return sinkhorn_divergence(
            *moved[:2],
            epsilon=moved[4],
            x_weights=moved[2],
            y_weights=moved[3],
            threshold=bound(1e-11, 1e-6),
            block=block,
        ).value

    slopes = jax.jit(jax.grad(value))(jnp.zeros(5))
    step = bound(1e-4, 3e-2)
    differences = [(value(step * unit) - value(-step * unit)) / (2 * step) for unit in jnp.eye(5)]
    np.testing.assert_allclose(slopes, differences, rtol=bound(1e-5, 2e-3), atol=bound(0, 1e-4))
    forward = jax.jvp(value, (jnp.zeros(5),), (jnp.ones(5),))[1]
    np.testing.assert_allclose(forward, jnp.sum(slopes), rtol=bound(1e-9, 1e-5))


def test_a_second_derivative_is_refused(problem):
    x, y, _, _ = problem

    def value(shift):
        return sinkhorn_divergence(x + shift, y, epsilon=EPSILON).value

    with pytest.raises(RuntimeError, match="a Sinkhorn divergence has first derivatives only"):
        jax.grad(jax.grad(value))(0.1)


def test_a_warm_start_saves_iterations_and_keeps_the_value(problem, solved):
    x, y, a, b = problem
    moved = x + 1e-3 * jnp.sin(y[: len(x)]), y, a, b
    cold, warm = solve(moved, threshold=1e-4), solve(moved, threshold=1e-4, initial=solved.potentials)
    assert int(warm.iterations) < 0.5 * int(cold.iterations), (warm.iterations, cold.iterations)
    np.testing.assert_allclose(warm.value, cold.value, rtol=1e-6)
    assert bool(warm.converged)


def test_a_start_that_is_not_finite_is_not_used(problem, solved):
    bad = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), solved.potentials)
    found = solve(problem, initial=bad)
    assert bool(found.converged)
    np.testing.assert_allclose(found.value, solved.value, rtol=bound(1e-12, 1e-5))


def test_a_start_of_other_sizes_is_refused(problem, solved):
    x, y, a, b = problem
    with pytest.raises(ValueError, match=r"`initial` must be of the clouds' sizes, \(47,\) and \(30,\)"):
        solve((y, x, b, a), initial=solved.potentials)


def test_a_block_without_rows_is_refused(problem):
    with pytest.raises(ValueError, match="`block` must be a whole number of at least 1"):
        solve(problem, block=0)


def test_a_curve_is_its_clouds_one_by_one(problem):
    x, y, a, b = problem
    clouds = x[None] + 0.02 * jnp.arange(4.0)[:, None, None] * jnp.sin(3 * x)[None]
    weights = jnp.stack([a] * 4)
    options = {"epsilon": EPSILON, "threshold": bound(1e-6, 1e-4)}
    curve = eqx.filter_jit(divergence_curve)(clouds, y, weights=weights, reference_weights=b, **options)
    each = [divergence(cloud, y, x_weights=a, y_weights=b, **options) for cloud in clouds]
    np.testing.assert_allclose(curve.value, [found.value for found in each], rtol=bound(1e-7, 1e-5))
    assert bool(jnp.all(curve.converged))
    assert all(int(warm) < int(found.iterations) for warm, found in zip(curve.iterations[1:], each[1:], strict=True))


def test_a_curve_recovers_from_a_bad_save(problem):
    x, y, _, _ = problem
    clouds = jnp.stack([x, x.at[3].set(jnp.nan), x])
    found = eqx.filter_jit(divergence_curve)(clouds, y, epsilon=EPSILON)
    assert found.converged.tolist() == [True, False, True]
    np.testing.assert_allclose(found.value[0], found.value[2], rtol=bound(1e-12, 1e-5))
