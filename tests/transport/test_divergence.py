"""The Sinkhorn divergence and its noise floor, against closed forms and symmetries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, compare, divergence, float64_only, stacks, uniform
from scipy.linalg import sqrtm

from wgf.transport import Divergence, Excess, epsilon_from_scale, sinkhorn_divergence


def bures(mean, covariance, other_mean, other_covariance):
    """W₂² of two Gaussian laws."""
    root = sqrtm(covariance)
    cross = sqrtm(root @ other_covariance @ root)
    shift = np.asarray(mean) - np.asarray(other_mean)
    return float(shift @ shift + np.trace(covariance + other_covariance - 2 * np.real(cross)))


def gaussians(seed, mean, covariance, count=2000):
    """Two samples of N(0, I) and one of N(mean, covariance), in the plane, in single precision."""
    first, twin, third = (
        jax.random.normal(k, (count, 2), jnp.float32) for k in jax.random.split(jax.random.key(seed), 3)
    )
    return first, twin, jnp.asarray(np.asarray(mean) + np.asarray(third) @ np.real(sqrtm(covariance)), jnp.float32)


def excess(first, twin, other):
    """The divergence of two clouds above that of two samples of the first one's law."""
    epsilon = epsilon_from_scale(first)
    value, floor = compare(first, other, epsilon), compare(first, twin, epsilon)
    return Excess(value.value, floor.value, value.epsilon, value.converged & floor.converged)


@pytest.mark.parametrize(
    ("mean", "covariance"),
    [
        ((3.0, 1.0), ((1.0, 0.0), (0.0, 1.0))),
        ((0.0, 0.0), ((4.0, 1.0), (1.0, 0.5))),
        ((0.0, 3.0), ((0.25, 0.0), (0.0, 0.09))),
    ],
    ids=["moved", "stretched", "moved and shrunk"],
)
def test_the_excess_of_two_gaussians_is_their_wasserstein_distance(mean, covariance):
    # A mean shift m is seen with a relative sampling error of about 2 √(2/n) / |m|, 2 % at these sizes.
    found = excess(*gaussians(0, np.array(mean), np.array(covariance)))
    exact = bures(np.zeros(2), np.eye(2), mean, np.array(covariance))
    assert bool(found.converged)
    assert abs(float(found.excess) / exact - 1) < 0.05, (float(found.value), float(found.floor), exact)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_excess_of_a_small_shift_is_that_of_the_samples_own_moments(seed):
    first, twin, other = gaussians(seed, np.array([1.0, 0.0]), np.eye(2))
    found = excess(first, twin, other)
    x, y = np.asarray(first, float), np.asarray(other, float)
    exact = bures(x.mean(axis=0), np.cov(x.T), y.mean(axis=0), np.cov(y.T))
    assert abs(float(found.excess) / exact - 1) < 0.05, (float(found.value), float(found.floor), exact)


def test_the_noise_floor_of_high_dimension_is_far_from_zero_and_subtracts():
    clouds = 0.7 * jax.random.normal(jax.random.key(3), (10, 2, 256, 55), jnp.float32)
    epsilon = epsilon_from_scale(clouds[0, 0])
    values = np.array([float(compare(x, y, epsilon).value) for x, y in clouds])
    floors, further = values[:8], values[8:]
    spread = floors.std(ddof=1)
    assert floors.mean() > 10 * spread, (floors, spread)
    assert floors.mean() > 0.1, floors
    assert np.abs(further - floors.mean()).max() < 4 * spread, (further, floors, spread)


def clouds(key, count=40):
    """Two different clouds in double precision."""
    x, y = (jax.random.normal(k, (count, 2)) for k in jax.random.split(key))
    return x, 1.5 * y + 1


def test_a_cloud_has_no_divergence_from_itself(key):
    x, _ = clouds(key)
    found = divergence(x, x, epsilon=0.5, threshold=bound(1e-9, 1e-5))
    assert abs(float(found.value)) < bound(1e-9, 1e-6), found
    assert bool(found.converged)


def test_the_divergence_of_two_points_is_their_squared_distance():
    found = compare(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]]), 0.5)
    np.testing.assert_allclose(found.value, 25, rtol=bound(1e-12, 1e-5))


def test_a_translation_adds_its_square(key):
    x, _ = clouds(key)
    np.testing.assert_allclose(compare(x, x + jnp.array([[1.0, -2.0]]), 0.5).value, 5, rtol=1e-3)


def test_the_divergence_is_symmetric_and_unchanged_by_a_rotation(key):
    x, y = clouds(key)
    turn = jnp.array([[0.6, -0.8], [0.8, 0.6]])
    value = compare(x, y, 0.5).value
    np.testing.assert_allclose(compare(y, x, 0.5).value, value, rtol=1e-3)
    np.testing.assert_allclose(compare(x @ turn, y @ turn, 0.5).value, value, rtol=bound(1e-9, 1e-5))


def test_the_divergence_takes_uniform_weights_by_default(key):
    x, y = clouds(key)
    np.testing.assert_allclose(divergence(x, y, epsilon=0.5).value, compare(x, y, 0.5).value, rtol=bound(1e-12, 1e-5))


def test_points_of_weight_zero_might_as_well_be_left_out(key):
    x, y = clouds(key)
    weights = jnp.where(jnp.arange(40) < 25, 1 / 25, 0)
    padded = compare(x, y, x_weights=weights)
    assert bool(padded.converged)
    np.testing.assert_allclose(padded.value, compare(x[:25], y).value, rtol=1e-6)


def test_a_double_weight_is_a_double_point(key):
    x, y = clouds(key)
    once = jnp.full(40, 1 / 40).at[0].set(2 / 40).at[1].set(0)
    np.testing.assert_allclose(compare(x, y, x_weights=once).value, compare(x.at[1].set(x[0]), y).value, rtol=1e-3)


def test_the_divergence_reports_the_epsilon_it_used(key):
    assert compare(*clouds(key), 0.3).epsilon == jnp.asarray(0.3)


def test_too_few_iterations_are_not_converged(key):
    x, y = clouds(key)
    short = divergence(x, y, epsilon=1e-3, max_iterations=10)
    assert not bool(short.converged), short
    assert int(short.iterations) == 10, short
    assert bool(compare(x, y).converged)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("place", ["x", "y", "weights", "epsilon"])
def test_input_that_is_not_finite_never_reads_as_converged(place, bad, key):
    x, y = clouds(key)
    given = {"x": x, "y": y, "weights": uniform(x), "epsilon": jnp.array(0.5)}
    given[place] = given[place].at[(0,) * given[place].ndim].set(bad)
    found = compare(given["x"], given["y"], given["epsilon"], given["weights"])
    assert not bool(found.converged), found


def test_float32_clouds_are_compared_in_float32(key):
    x, y = (cloud.astype(jnp.float32) for cloud in clouds(key))
    found = sinkhorn_divergence(x, y, epsilon=0.5)
    assert found.value.dtype == jnp.float32
    np.testing.assert_allclose(found.value, compare(*clouds(key), 0.5).value, rtol=1e-3)


@float64_only
def test_float32_clouds_take_an_epsilon_of_double_precision(key):
    x, y = (cloud.astype(jnp.float32) for cloud in clouds(key))
    found = sinkhorn_divergence(x, y, epsilon=jnp.float64(0.5), x_weights=uniform(x), y_weights=uniform(y))
    assert found.value.dtype == jnp.float32


def test_the_divergence_has_the_gradient_of_its_finite_differences(key):
    x, y = clouds(key, count=12)

    @jax.jit
    def value(shift):
        return sinkhorn_divergence(
            x + shift * jnp.array([[1.0, 0.5]]), y, epsilon=0.5, threshold=bound(1e-9, 1e-6)
        ).value

    slope, step = jax.grad(value)(0.2), bound(1e-4, 3e-2)
    np.testing.assert_allclose(slope, (value(0.2 + step) - value(0.2 - step)) / (2 * step), rtol=bound(1e-4, 1e-3))


def test_excess_is_the_value_above_the_floor():
    values = [jnp.array([v]) for v in (3.0, 1.0, 0.1)]
    np.testing.assert_array_equal(Excess(*values, jnp.array([True])).excess, [2.0])


def test_a_divergence_passes_through_vmap(key):
    x, y, _, _ = stacks(key)
    together = jax.jit(jax.vmap(lambda x, y: sinkhorn_divergence(x, y, epsilon=0.5)))(x, y)
    assert isinstance(together, Divergence)
    np.testing.assert_allclose(together.value, [compare(*pair).value for pair in zip(x, y, strict=True)], rtol=1e-3)
