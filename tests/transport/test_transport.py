import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, float64_only
from scipy.linalg import sqrtm

from wgf.measures import Layered, Spectral
from wgf.transport import (
    Divergence,
    Excess,
    conditional_divergence,
    coupling_distance,
    epsilon_from_scale,
    sinkhorn_divergence,
)

divergence = eqx.filter_jit(sinkhorn_divergence)
conditional = eqx.filter_jit(conditional_divergence)


def uniform(cloud):
    """Equal weights in the cloud's own precision."""
    return jnp.full(cloud.shape[:-1], 1 / cloud.shape[-2], cloud.dtype)


def compare(x, y, epsilon=0.5, x_weights=None, y_weights=None):
    """The divergence of two clouds, of equal weights by default; compiled once for each pair of sizes."""
    x_weights = uniform(x) if x_weights is None else x_weights
    y_weights = uniform(y) if y_weights is None else y_weights
    return divergence(x, y, epsilon=jnp.asarray(epsilon, x.dtype), x_weights=x_weights, y_weights=y_weights)


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
    return first, twin, jnp.asarray(np.asarray(mean) + np.asarray(third @ np.real(sqrtm(covariance))), jnp.float32)


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


def stacks(key):
    """Two stacks of clouds at three depths, with weights."""
    keys = jax.random.split(key, 4)
    x, y = jax.random.normal(keys[0], (3, 40, 2)), 1 + jax.random.normal(keys[1], (3, 40, 2))
    a, b = (jnp.exp(jax.random.normal(k, (3, 40))) for k in keys[2:])
    return x, y, a / a.sum(axis=1, keepdims=True), b / b.sum(axis=1, keepdims=True)


def test_the_conditional_divergence_is_the_weighted_sum_over_depths(key):
    x, y, a, b = stacks(key)
    depth_weights = jnp.array([0.2, 0.5, 0.3])
    found = conditional(x, y, depth_weights, epsilon=0.5, x_weights=a, y_weights=b)
    each = [compare(x[i], y[i], 0.5, a[i], b[i]) for i in range(3)]
    np.testing.assert_allclose(
        found.value, sum(w * e.value for w, e in zip(depth_weights, each, strict=True)), rtol=bound(1e-10, 1e-5)
    )
    assert int(found.iterations) == max(int(e.iterations) for e in each)
    assert bool(found.converged)
    assert float(found.epsilon) == 0.5


def test_the_conditional_divergence_takes_uniform_weights_by_default(key):
    x, y, _, _ = stacks(key)
    depth_weights = jnp.full(3, 1 / 3)
    given = conditional(x, y, depth_weights, epsilon=0.5, x_weights=uniform(x), y_weights=uniform(y))
    np.testing.assert_allclose(
        conditional(x, y, depth_weights, epsilon=0.5).value, given.value, rtol=bound(1e-12, 1e-5)
    )


def test_mass_does_not_move_across_depths():
    x = jnp.array([0.0, 5.0]).reshape(2, 1, 1)
    swapped = conditional(x, x[::-1], jnp.array([0.5, 0.5]), epsilon=0.5)
    np.testing.assert_allclose(swapped.value, 25, rtol=bound(1e-12, 1e-5))


@pytest.mark.parametrize("place", [0, 2])
def test_one_bad_depth_keeps_the_whole_from_reading_as_converged(place, key):
    x, y, a, b = stacks(key)
    bad = x.at[place, 0, 0].set(jnp.nan)
    found = conditional(bad, y, jnp.full(3, 1 / 3), epsilon=0.5, x_weights=a, y_weights=b)
    assert not bool(found.converged), found


def test_excess_is_the_value_above_the_floor():
    values = [jnp.array([v]) for v in (3.0, 1.0, 0.1)]
    np.testing.assert_array_equal(Excess(*values, jnp.array([True])).excess, [2.0])


def test_a_divergence_passes_through_vmap(key):
    x, y, _, _ = stacks(key)
    together = jax.jit(jax.vmap(lambda x, y: sinkhorn_divergence(x, y, epsilon=0.5)))(x, y)
    assert isinstance(together, Divergence)
    np.testing.assert_allclose(together.value, [compare(*pair).value for pair in zip(x, y, strict=True)], rtol=1e-3)


def test_the_coupling_distance_by_hand():
    particles = {"a": jnp.array([[0.0, 1.0], [2.0, 3.0]]), "b": jnp.zeros((2, 2, 2))}
    moved = {
        "a": jnp.array([[1.0, 1.0], [2.0, 5.0]]),
        "b": jnp.zeros((2, 2, 2)).at[0, 1].set(jnp.array([3.0, 4.0])),
    }
    weights = jnp.array([[0.25, 0.75], [0.5, 0.5]])
    # Squared distances 1, 25; 0, 4 with masses 1/8, 3/8; 1/4, 1/4.
    expected = 1 / 8 + 25 * 3 / 8 + 4 / 4
    np.testing.assert_allclose(
        coupling_distance(Layered(particles, weights), Layered(moved)), np.sqrt(expected), rtol=bound(1e-14, 1e-6)
    )


def test_the_coupling_distance_uses_the_depth_weights_of_the_measure():
    start, end = jnp.zeros((3, 1)), jnp.array([[0.0], [6.0], [0.0]])
    np.testing.assert_allclose(coupling_distance(Spectral(start), Layered(end)), 4, rtol=bound(1e-13, 1e-6))


def test_coupling_distance_of_measures_of_other_sizes_is_refused():
    with pytest.raises(ValueError, match=r"`tracers` must have the measure's depth and width, \(2, 3\); got \(3, 2\)"):
        coupling_distance(Layered(jnp.zeros((2, 3))), Layered(jnp.zeros((3, 2))))
