"""Gelbrich's bound of the Wasserstein distance, from means and covariances."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers import bound
from hypothesis import given, settings, strategies as st
from ott.geometry import costs
from scipy.optimize import linear_sum_assignment

from wgf.transport import gelbrich_distance


def clouds(seed, count, dim, shift=1.0):
    """A cloud, and a nearby one with other means and covariances."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, dim))
    return jnp.asarray(x), jnp.asarray(x + shift * (0.3 * x @ rng.normal(size=(dim, dim)) + rng.normal(size=dim)))


def by_traces(x, y):
    """The distance as it is written, by SciPy's square root in float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    first, second = (np.atleast_2d(np.cov(points.T, bias=True)) for points in (x, y))
    root = np.real(scipy.linalg.sqrtm(first))
    cross = np.real(scipy.linalg.sqrtm(root @ second @ root))
    squares = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(first) + np.trace(second) - 2 * np.trace(cross)
    return np.sqrt(squares)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), dim=st.integers(1, 6))
def test_it_is_the_distance_of_gaussians(seed, dim):
    x, y = clouds(seed, 40, dim)
    np.testing.assert_allclose(gelbrich_distance(x, y), by_traces(x, y), rtol=bound(1e-7, 1e-4))


@pytest.mark.parametrize("dim", [2, 5])
def test_ott_agrees(dim):
    x, y = clouds(0, 40, dim)

    def packed(points):
        covariance = jnp.cov(points.T, bias=True)
        return costs.mean_and_cov_to_x(points.mean(0), covariance, dim)

    with jax.numpy_rank_promotion("allow"):
        squares = costs.Bures(dim)(packed(x), packed(y))
    np.testing.assert_allclose(gelbrich_distance(x, y) ** 2, squares, rtol=bound(1e-5, 1e-3))


def test_it_bounds_the_wasserstein_distance_from_below():
    x, y = clouds(1, 60, 4)
    y = y**3
    costs = np.sum((np.asarray(x)[:, None] - np.asarray(y)[None]) ** 2, axis=-1)
    exact = np.sqrt(costs[linear_sum_assignment(costs)].mean())
    assert 0.5 * exact < gelbrich_distance(x, y) < exact


def test_it_is_exact_for_a_positive_definite_map():
    x = jnp.asarray(np.random.default_rng(2).normal(size=(30, 3)))
    y = x @ jnp.array([[2.0, 0.3, 0.0], [0.3, 1.0, 0.1], [0.0, 0.1, 0.5]]) + 1.0
    paired = np.sqrt(np.mean(np.sum((np.asarray(x) - np.asarray(y)) ** 2, axis=1)))
    np.testing.assert_allclose(gelbrich_distance(x, y), paired, rtol=bound(1e-7, 1e-5))


@pytest.mark.parametrize("shift", [1e-1, 1e-2, 1e-3])
def test_near_clouds_do_not_cancel(shift):
    """By traces in float32 the smallest of these distances drowns: 56 coordinates of variance 1, distances of 1e-3."""
    x, y = (points.astype(jnp.float32) for points in clouds(3, 512, 56, shift / 8))
    np.testing.assert_allclose(gelbrich_distance(x, y), by_traces(x, y), rtol=1e-3)


def test_fewer_points_than_dimensions_and_equal_clouds():
    x, y = clouds(4, 5, 12, 0.1)
    assert gelbrich_distance(x, x) < bound(1e-7, 1e-5)
    exact = np.sqrt(np.mean(np.sum(np.asarray(x - y) ** 2, axis=1)))
    assert 0 < gelbrich_distance(x, y) <= exact


def test_clouds_far_from_zero():
    x, y = clouds(5, 40, 3)
    np.testing.assert_allclose(gelbrich_distance(x + 1e3, y + 1e3), gelbrich_distance(x, y), rtol=bound(1e-9, 1e-3))


def test_weights_count_as_copies():
    x, y = clouds(6, 6, 3)
    weights = jnp.array([0.5, 0.25, 0.25, 0, 0, 0])
    copies = x[np.array([0, 0, 1, 2])]
    np.testing.assert_allclose(
        gelbrich_distance(x, y, x_weights=weights), gelbrich_distance(copies, y), rtol=bound(1e-9, 1e-5)
    )


def test_it_passes_through_jit_and_vmap():
    pairs = [clouds(seed, 10, 3) for seed in (7, 8)]
    together = jax.jit(jax.vmap(gelbrich_distance))(*(jnp.stack(each) for each in zip(*pairs, strict=True)))
    np.testing.assert_allclose(together, [gelbrich_distance(*pair) for pair in pairs], rtol=bound(1e-9, 1e-5))


def test_what_it_refuses(unchecked):
    x, y = clouds(9, 4, 2)
    with pytest.raises(ValueError, match="`y` must have points of 2 coordinates"):
        gelbrich_distance(x, y[:, :1])
    with pytest.raises(ValueError, match="`x_weights` must be non-negative with sum 1"):
        gelbrich_distance(x, y, x_weights=jnp.ones(4))


def test_one_decomposition_of_each_kind_for_all_clouds():
    """Two batched ones that run at the same time can stop a program for ever (see `_square_roots`)."""
    stack = jnp.zeros((8, 20, 3))
    text = jax.jit(jax.vmap(gelbrich_distance)).lower(stack, stack).as_text()
    assert len(re.findall(r"custom_call @\w*syevd\w*", text)) == 1
    assert len(re.findall(r"custom_call @\w*gesdd\w*", text)) == 1
