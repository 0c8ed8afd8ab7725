"""ε from the scale of any cloud: far points, repeated ones, scales from 1e-6 to 1e6."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FLOATS, bound
from hypothesis import given, settings, strategies as st

from wgf.transport import epsilon_from_scale

COUNT = 24


def seen(cloud, epsilon):
    """The mean of exp(−‖x_i − x_j‖² / ε) over the pairs of points that do not coincide."""
    cloud = np.asarray(cloud, float)
    squares = np.sum((cloud[:, None] - cloud) ** 2, axis=-1)
    return np.mean(np.exp(-squares[squares > 0] / float(epsilon)))


def cloud_of(seed, kind, scale, dtype):
    points = np.array(jax.random.normal(jax.random.key(seed), (COUNT, 3)))
    if kind == "far point":
        points[seed % COUNT] += 1e3
    if kind == "far groups":
        points[: COUNT // 2] += 1e4
    if kind == "repeated":
        points = points[np.arange(COUNT) // 6]
    if kind == "two places":
        points = points[np.arange(COUNT) % 2]
    return jnp.asarray(scale * points, dtype)


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 2**20),
    st.sampled_from(["normal", "far point", "far groups", "repeated", "two places"]),
    st.floats(-6, 6),
    st.floats(0.01, 0.9),
    st.sampled_from(FLOATS),
)
def test_a_point_sees_the_fraction_of_those_elsewhere(seed, kind, power, fraction, dtype):
    cloud = cloud_of(seed, kind, 10**power, dtype)
    epsilon = epsilon_from_scale(cloud, fraction)
    assert epsilon.dtype == dtype
    assert jnp.isfinite(epsilon)
    assert epsilon > 0
    assert seen(cloud, epsilon) == pytest.approx(fraction, abs=2e-3), (epsilon, seen(cloud, epsilon))


@settings(max_examples=30, deadline=None)
@given(st.floats(-6, 6), st.sampled_from([-1, 0, 1]), st.sampled_from(FLOATS))
def test_points_that_are_all_equal_have_one(power, sign, dtype):
    assert epsilon_from_scale(jnp.full((COUNT, 3), sign * 10**power, dtype)) == 1


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e15])
def test_squares_beyond_the_range_of_float32_do_no_harm(size):
    cloud = cloud_of(0, "normal", 1.0, jnp.float32)
    expected = float(epsilon_from_scale(cloud)) * size**2
    np.testing.assert_allclose(epsilon_from_scale(jnp.float32(size) * cloud), expected, rtol=1e-3, atol=1e-37)


def test_two_points_see_each_other():
    """exp(−d² / ε) = f, so ε = d² / log(1/f)."""
    np.testing.assert_allclose(epsilon_from_scale(jnp.array([[0.0], [3.0]]), 0.05), 9 / np.log(20), rtol=2e-4)


@pytest.mark.parametrize("dim", [2, 55])
@pytest.mark.parametrize("fraction", [0.05, 0.2])
def test_epsilon_of_a_gaussian_cloud_is_the_closed_form(dim, fraction, key):
    epsilon = float(epsilon_from_scale(0.7 * jax.random.normal(key, (1024, dim), jnp.float32), fraction))
    exact = 4 * 0.7**2 / (fraction ** (-2 / dim) - 1)
    assert abs(epsilon / exact - 1) < 0.1, (epsilon, exact)


def test_epsilon_is_the_one_at_which_a_point_sees_the_fraction(key):
    cloud = np.asarray(jax.random.normal(key, (200, 3)))
    epsilon = float(epsilon_from_scale(jnp.asarray(cloud), 0.1))
    squares = np.sum((cloud[:, None] - cloud) ** 2, axis=-1)
    seen = (np.sum(np.exp(-squares / epsilon)) - 200) / (200 * 199)
    assert abs(seen - 0.1) < 1e-3, (epsilon, seen)


def test_epsilon_scales_with_the_square_of_the_data(key):
    cloud = jax.random.normal(key, (200, 3))
    np.testing.assert_allclose(epsilon_from_scale(30 * cloud), 900 * epsilon_from_scale(cloud), rtol=bound(1e-9, 1e-5))


def test_epsilon_does_not_see_a_translation(key):
    cloud = jax.random.normal(key, (200, 3))
    np.testing.assert_allclose(epsilon_from_scale(cloud + 5), epsilon_from_scale(cloud), rtol=bound(1e-9, 1e-5))


def test_epsilon_uses_the_first_1024_points(key):
    cloud = jax.random.normal(key, (1024, 2))
    longer = jnp.concatenate([cloud, 100 + jnp.zeros((50, 2))])
    assert float(epsilon_from_scale(longer)) == float(epsilon_from_scale(cloud))


def test_epsilon_of_coinciding_points_is_one():
    assert float(epsilon_from_scale(jnp.ones((5, 3)))) == 1.0


def test_epsilon_of_a_single_point_is_refused():
    with pytest.raises(ValueError, match="`cloud` must hold at least two points to have a scale; got 1"):
        epsilon_from_scale(jnp.ones((1, 3)))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 2.0])
def test_a_fraction_beyond_its_range_is_refused(fraction):
    with pytest.raises(ValueError, match=f"`fraction` must lie between 0 and 1; got {fraction}"):
        epsilon_from_scale(jnp.ones((5, 3)), fraction)
