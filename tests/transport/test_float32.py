"""Single precision: `converged` is never said of a value that float64 contradicts, however far points are apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import promotion
from hypothesis import given, settings, strategies as st
from ott.geometry.pointcloud import PointCloud
from ott.tools.sinkhorn_divergence import sinkhorn_divergence as ott_divergence

from wgf.transport import conditional_divergence, sinkhorn_divergence
from wgf.transport._gibbs import gibbs

N, M, DIM = 32, 16, 3


def groups(seed, *, apart=0.0, scale=1.0, offset=0.0, shift=0.3):
    """Two clouds in float32, each in two halves some distance apart, which needs no mass to move between them."""
    x, y = (np.array(jax.random.normal(jax.random.key(2 * seed + i), (n, DIM))) for i, n in enumerate((N, M)))
    y = 1.2 * y + shift
    for cloud in (x, y):
        cloud[: len(cloud) // 2, 0] += apart
    return tuple(jnp.asarray(scale * (cloud + offset), jnp.float32) for cloud in (x, y))


@jax.jit
def compare(x, y, epsilon, threshold=1e-3):
    return sinkhorn_divergence(x, y, epsilon=epsilon, threshold=threshold)


def wide(cloud):
    return jnp.asarray(np.asarray(cloud), jnp.float64)


def in_double(x, y, epsilon, threshold=1e-3):
    with jax.enable_x64(True):
        return compare(wide(x), wide(y), jnp.float64(epsilon), jnp.float64(threshold))


@pytest.mark.parametrize("apart", [1e2, 1e4, 1e6])
def test_groups_far_apart_have_the_divergence_of_float64(apart):
    x, y = groups(0, apart=apart)
    found, exact = compare(x, y, jnp.float32(0.5)), in_double(x, y, 0.5)
    options = {"threshold": 1e-6, "max_iterations": 20000}
    with jax.enable_x64(True), promotion():
        theirs, _ = ott_divergence(PointCloud, wide(x), wide(y), epsilon=0.5, solve_kwargs=options)
    assert bool(found.converged)
    np.testing.assert_allclose(exact.value, theirs, rtol=1e-3)
    # Float32's numbers of this size are this far apart: 0.1 at 10⁶, against distances of order 1.
    spacing = apart * float(jnp.finfo(jnp.float32).eps)
    np.testing.assert_allclose(found.value, theirs, rtol=5e-3 + spacing / 10)


def test_a_common_offset_costs_no_digits_but_those_of_the_points():
    x, y = groups(1, offset=1e5)
    found = compare(x, y, jnp.float32(0.5))
    assert bool(found.converged)
    np.testing.assert_allclose(found.value, in_double(x, y, 0.5).value, rtol=1e-3)


def test_what_float32_cannot_resolve_has_not_converged():
    """Half of the mass moves by 1e4 at ε = 0.5: potentials of 1e8, whose spacing is 8."""
    x = jnp.zeros((2, 1), jnp.float32)
    y = jnp.array([[-1e4], [1e4]], jnp.float32)
    single, double = compare(x, y, jnp.float32(0.5)), in_double(x, y, 0.5)
    assert not bool(single.converged), single
    assert bool(double.converged), double
    np.testing.assert_allclose(double.value, 1e8, rtol=1e-6)


powers = st.floats(-6, 6)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**20), powers, st.floats(-5, 3), st.floats(-1, 5), st.floats(0, 6), st.sampled_from([1e-3, 1e-4])
)
def test_converged_is_true_only_of_values_that_float64_confirms(seed, scale, fraction, apart, offset, threshold):
    """ε from 1e-5 to 1e3 of the squared scale, groups up to 1e5 scales apart, up to 1e6 scales from the origin."""
    scale, apart, offset = 10**scale, 10**apart * (apart >= 0), 10**offset * (offset >= 1)
    x, y = groups(seed, scale=scale, apart=apart, offset=offset)
    epsilon = jnp.float32(10**fraction * scale**2)
    found = compare(x, y, epsilon, jnp.float32(threshold))
    if bool(found.converged):
        exact = in_double(x, y, epsilon, threshold)
        error = abs(float(found.value) - float(exact.value))
        assert error <= 0.01 * max(float(epsilon), abs(float(exact.value))), (found.value, exact.value, exact.converged)


def test_a_gradient_far_apart_is_that_of_float64():
    x, y = groups(2, apart=1e4)

    def value(points, epsilon, y):
        return sinkhorn_divergence(points, y, epsilon=epsilon, threshold=1e-4).value

    slope = jax.jit(jax.grad(value, (0, 1)))
    single = slope(x, jnp.float32(0.5), y)
    with jax.enable_x64(True):
        double = slope(wide(x), jnp.float64(0.5), wide(y))
    np.testing.assert_allclose(single[0], double[0], atol=5e-3 * float(np.max(np.abs(double[0]))))
    np.testing.assert_allclose(single[1], double[1], rtol=2e-2)


def test_depths_far_and_near_are_compared_together():
    near, far = groups(3), groups(3, apart=1e4)
    x, y = (jnp.stack(pair) for pair in zip(near, far, strict=True))
    found = conditional_divergence(x, y, jnp.array([0.5, 0.5]), epsilon=0.5)
    each = [float(in_double(*pair, 0.5).value) for pair in (near, far)]
    assert bool(found.converged)
    np.testing.assert_allclose(found.value, sum(each) / 2, rtol=5e-3)


def test_a_batch_takes_one_branch_for_all_and_has_the_values_of_its_members():
    near, far = groups(4), groups(4, apart=1e4)
    x, y = (jnp.stack(pair) for pair in zip(near, far, strict=True))
    batch = jax.jit(jax.vmap(lambda x, y: sinkhorn_divergence(x, y, epsilon=0.5)))(x, y)
    np.testing.assert_allclose(batch.value, [compare(*pair, jnp.float32(0.5)).value for pair in (near, far)], rtol=2e-3)

    def kernel(x, y):
        return gibbs(x, y, jnp.zeros(N, x.dtype), jnp.zeros(M, x.dtype), jnp.float32(0.5))

    text = str(jax.make_jaxpr(jax.vmap(kernel))(x, y))
    assert "cond[" in text, text


def test_a_kernel_is_made_within_the_branches_so_that_one_pass_makes_it():
    x, y = groups(3)
    program = jax.make_jaxpr(gibbs)(x, y, jnp.zeros(N, x.dtype), jnp.zeros(M, x.dtype), jnp.float32(0.5))
    whole = [eqn.primitive.name for eqn in program.eqns if any(var.aval.shape == (N, M) for var in eqn.outvars)]
    assert whole == ["cond"], program
