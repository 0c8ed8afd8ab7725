"""ε from the scale of any cloud: far points, repeated ones, scales from 1e-6 to 1e6."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FLOATS
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
