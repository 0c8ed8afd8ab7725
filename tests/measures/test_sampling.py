import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, averaged, bound, vectors
from scipy.stats import norm

from wgf.encoders import Average, Perceptron, Zero
from wgf.measures import Gaussian, Independent, SignOrbits, SignPairs, Sobol, Whitened, coordinate_names, coordinates

NEURON = Perceptron(2, jnp.tanh)
SAMPLINGS = {
    "independent": Independent(),
    "sobol": Sobol(),
    "pairs": SignPairs(),
    "sobol pairs": SignPairs(Sobol()),
    "orbits": SignOrbits((("w_out",),)),
}
each_sampling = pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())


@each_sampling
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_gaussian_particles_have_mean_zero_and_the_variance_of_the_scale(sampling, scale, key):
    width = 2048
    points = vectors(Gaussian(NEURON, scale, sampling).sample(key, width)) / scale
    means, squares = points.mean(axis=0), (points**2).mean(axis=0)
    # Pairs share their squares: half as many of them are independent.
    assert np.abs(means).max() < 4 / np.sqrt(width), means
    assert np.abs(squares - 1).max() < 4 * np.sqrt(2 / (width / 2)), squares


@each_sampling
def test_the_spectral_measure_shares_one_sample_over_its_nodes(sampling, key):
    measure = Gaussian(NEURON, 0.7, sampling).spectral(3, 8, key)
    points = np.asarray(coordinates(measure.particles))
    np.testing.assert_array_equal(points[1:], points[:1].repeat(2, axis=0))
    assert len(np.unique(points[0], axis=0)) == 8


@each_sampling
def test_the_layered_measure_has_a_sample_of_its_own_in_each_layer(sampling, key):
    points = np.asarray(coordinates(Gaussian(NEURON, 0.7, sampling).layered(4, 8, key).particles))
    assert len(np.unique(points.reshape(32, -1), axis=0)) == 32


@each_sampling
def test_the_same_key_gives_the_same_particles(sampling, key):
    law = Gaussian(NEURON, 1.0, sampling)
    np.testing.assert_array_equal(vectors(law.sample(key, 8)), vectors(law.sample(key, 8)))
    assert np.abs(vectors(law.sample(key, 8)) - vectors(law.sample(jax.random.key(1), 8))).min() > 0


@each_sampling
def test_sampling_is_the_same_under_jit(sampling, key):
    law = Gaussian(NEURON, 0.7, sampling)
    compiled = jax.jit(lambda k: law.sample(k, 8))(key)
    np.testing.assert_allclose(vectors(compiled), vectors(law.sample(key, 8)), rtol=1e-12)


@each_sampling
def test_sampling_over_keys_by_vmap_is_that_of_a_loop(sampling, key):
    law, keys = Gaussian(NEURON, 0.7, sampling), jax.random.split(key, 3)
    together = np.asarray(coordinates(jax.vmap(lambda k: law.sample(k, 8))(keys)))
    np.testing.assert_allclose(together, np.stack([vectors(law.sample(k, 8)) for k in keys]), rtol=1e-12)


def test_sobol_takes_keys_of_the_old_kind_too(key):
    old = Sobol()(jax.random.key_data(key), NEURON, 8)
    np.testing.assert_array_equal(vectors(old), vectors(Sobol()(key, NEURON, 8)))


@pytest.mark.parametrize("double", [True, False])
def test_sobol_in_a_precision_that_is_set_for_one_thread(double, key):
    """The host's callbacks run in other threads, which do not see it."""
    with jax.enable_x64(double):
        found = vectors(Sobol()(key, NEURON, 8))
        traced = vectors(jax.jit(lambda key: Sobol()(key, NEURON, 8))(key))
    assert found.dtype == traced.dtype == (jnp.float64 if double else jnp.float32)
    np.testing.assert_array_equal(found, traced)
    np.testing.assert_allclose(found, vectors(Sobol()(key, NEURON, 8)), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("width", [1, 3, 5, 8])
def test_sobol_gives_any_width(width, key):
    assert vectors(Sobol()(key, NEURON, width)).shape == (width, 5)


def test_sobol_points_fill_every_interval_of_equal_probability_once(key):
    cells = np.floor(16 * norm.cdf(vectors(Sobol()(key, NEURON, 16)))).astype(int)
    np.testing.assert_array_equal(np.sort(cells, axis=0), np.arange(16)[:, None].repeat(5, axis=1))


def root_mean_square_error(sampling, widths, repeats=24):
    """The error of the mean of a smooth function of two coordinates, for each width."""
    encoder = Perceptron(1, jnp.tanh, use_bias=False)
    exact = np.exp(-0.25)  # E cos(a x + b y) = exp(−(a² + b²)/2) with a = b = ½.

    def error(key, width):
        particles = sampling(key, encoder, width)
        wave = jnp.cos((particles.w_in[:, 0] + particles.w_out[:, 0]) / 2)
        return jnp.mean(wave) - exact

    keys = jax.random.split(jax.random.key(8), repeats)
    return np.array([float(jnp.sqrt(jnp.mean(jax.vmap(lambda k, m=m: error(k, m))(keys) ** 2))) for m in widths])


def slope(widths, errors):
    return np.polyfit(np.log(widths), np.log(errors), 1)[0]


def test_sobol_integrates_smooth_functions_of_two_coordinates_at_near_first_order():
    widths = [64, 128, 256, 512, 1024]
    independent, sobol = (root_mean_square_error(s, widths) for s in (Independent(), Sobol()))
    slopes = slope(widths, independent), slope(widths, sobol)
    table = f"slopes {slopes}\n" + "\n".join(map(str, zip(widths, independent, sobol, strict=True)))
    assert -0.7 < slopes[0] < -0.3, table
    assert -1.6 < slopes[1] < -0.8, table
    assert np.all(sobol < independent / 4), table


@pytest.mark.parametrize("base", [Independent(), Sobol()], ids=["independent", "sobol"])
@pytest.mark.parametrize("encoder", [NEURON, averaged(2), Average(Zero(), NEURON)], ids=["neuron", "average", "half"])
def test_sign_pairs_make_the_mean_of_the_encoder_exactly_zero(base, encoder, key):
    particles = Gaussian(encoder, 0.7, SignPairs(base)).sample(key, 12)
    tokens = jax.random.normal(key, (3, 2, 4))
    half = jnp.tile(jnp.array([1.0, 0.0]), 6) / 6
    assert jnp.max(jnp.abs(encoder.mean(particles, half, tokens))) > 1e-2
    np.testing.assert_allclose(encoder.mean(particles, jnp.full(12, 1 / 12), tokens), 0, atol=bound(1e-16, 1e-7))


def test_sign_pairs_are_reflections_next_to_each_other(key):
    particles = SignPairs()(key, NEURON, 8)
    for name, sign in (("w_in", 1), ("w_out", -1), ("bias", 1)):
        leaf = getattr(particles, name)
        np.testing.assert_array_equal(leaf[1::2], sign * leaf[::2], err_msg=name)


def test_sign_pairs_keep_the_points_of_their_base(key):
    pairs = vectors(SignPairs(Sobol())(key, NEURON, 8))
    np.testing.assert_array_equal(pairs[::2], vectors(Sobol()(key, NEURON, 4)))


FLIPS = (("w_out",), ("w_in", "bias"))


def test_sign_orbits_average_functions_odd_in_a_set_to_zero(key):
    points = vectors(SignOrbits(FLIPS)(key, NEURON, 12)).reshape(3, 4, 5)
    w_in, w_out, bias = points[..., :2], points[..., 2:4], points[..., 4]
    odd_out = w_out[..., 0] ** 3 * np.cos(w_in[..., 0])
    odd_in = np.sin(w_in @ [1.0, 2.0] + bias) * w_out[..., 1] ** 2
    for odd in (odd_out, odd_in, odd_out * odd_in):
        assert np.abs(odd).max() > 1e-2
        np.testing.assert_allclose(odd.mean(axis=1), 0, atol=bound(1e-15, 1e-7))


def test_sign_orbits_hold_the_points_of_their_base_and_all_their_signs(key):
    points = vectors(SignOrbits(FLIPS)(key, NEURON, 12)).reshape(3, 4, 5)
    np.testing.assert_array_equal(points[:, 0], vectors(Independent()(key, NEURON, 3)))
    signs = np.sign(points / points[:, :1])
    assert {tuple(row) for row in signs[0]} == {(a, a, b, b, a) for a in (1, -1) for b in (1, -1)}
    np.testing.assert_array_equal(np.abs(points), np.abs(points[:, :1]).repeat(4, axis=1))


def test_sign_orbits_of_one_set_are_sign_pairs(key):
    orbits = SignOrbits((("f.value", "h.w_out"),), Sobol())(key, averaged(2), 8)
    np.testing.assert_array_equal(vectors(orbits), vectors(SignPairs(Sobol())(key, averaged(2), 8)))


def test_sign_orbits_of_a_width_they_do_not_fill_are_refused(key):
    with pytest.raises(ValueError, match="`width` must be a multiple of 4 for sampling by these sign orbits; got 6"):
        SignOrbits(FLIPS)(key, NEURON, 6)


def test_sign_orbits_of_unknown_coordinates_are_refused(key):
    with pytest.raises(
        ValueError, match=r"`flips` must name coordinates of the encoder, \['w_in\[0\]'.*got \('value',\)"
    ):
        SignOrbits((("value",),))(key, NEURON, 6)


@pytest.mark.parametrize("base", [Independent(), Sobol(), SignPairs(Sobol())], ids=["independent", "sobol", "pairs"])
def test_second_moments_of_a_whitened_sample_are_exact(base, key):
    raw, points = (vectors(sampling(key, NEURON, 40)) for sampling in (base, Whitened(base)))
    assert np.abs(raw.T @ raw / 40 - np.eye(5)).max() > 1e-2
    np.testing.assert_allclose(points.T @ points / 40, np.eye(5), atol=bound(1e-13, 2e-6))


def test_a_whitened_sample_keeps_its_pairs(key):
    particles = Whitened(SignPairs(Sobol()))(key, NEURON, 32)
    np.testing.assert_allclose(particles.w_out[1::2], -particles.w_out[::2], atol=bound(1e-14, 2e-6))
    np.testing.assert_allclose(particles.w_in[1::2], particles.w_in[::2], atol=bound(1e-14, 2e-6))


def test_a_whitened_sample_is_the_same_under_jit(key):
    law = Gaussian(NEURON, 0.7, Whitened(SignPairs(Sobol())))
    compiled = jax.jit(lambda k: law.sample(k, 32))(key)
    np.testing.assert_allclose(vectors(compiled), vectors(law.sample(key, 32)), atol=bound(1e-13, 2e-6))


def test_whitening_moves_large_samples_little(key):
    moved = vectors(Whitened()(key, NEURON, 4096)) - vectors(Independent()(key, NEURON, 4096))
    assert np.sqrt(np.mean(moved**2)) < 2 * np.sqrt(5 / 4096)


def test_too_few_particles_to_whiten_are_refused(key):
    with pytest.raises(ValueError, match="`width` must be at least 4 P = 20 for a whitened sample; got 19"):
        Whitened()(key, NEURON, 19)


def test_sign_pairs_of_an_encoder_without_reflection_are_refused(key):
    with pytest.raises(ValueError, match=r"`sampling` by sign pairs takes an encoder with a reflection.*; got Matrix"):
        Gaussian(Matrix(2), 1.0, SignPairs()).sample(key, 4)


def test_sign_pairs_of_an_odd_width_are_refused(key):
    with pytest.raises(ValueError, match="`width` must be even for sampling by sign pairs; got 5"):
        Gaussian(NEURON, 1.0, SignPairs()).layered(2, 5, key)


@each_sampling
def test_an_encoder_without_parameters_is_refused(sampling, key):
    with pytest.raises(ValueError, match="`encoder` must have particles with at least one parameter; got none"):
        Gaussian(Zero(), 1.0, sampling).sample(key, 4)


@each_sampling
@pytest.mark.parametrize("width", [0, -2])
def test_a_width_below_one_is_refused(sampling, width, key):
    law = Gaussian(NEURON, 1.0, sampling)
    for build in (law.layered, law.spectral):
        with pytest.raises(ValueError, match=f"`width` must be a whole number of at least 1; got {width}"):
            build(2, width, key)


def test_coordinate_names_say_the_leaf_and_the_index():
    assert coordinate_names(NEURON) == ["w_in[0]", "w_in[1]", "w_out[0]", "w_out[1]", "bias"]


def test_coordinate_names_of_an_average_name_its_halves():
    names = coordinate_names(averaged(2, key_dim=1))
    assert names[:4] == ["f.value[0,0]", "f.value[0,1]", "f.value[1,0]", "f.value[1,1]"]
    assert names[-1] == "h.bias"


@pytest.mark.parametrize("encoder", [NEURON, averaged(3), Matrix(2), Average(Zero(), NEURON)])
def test_every_coordinate_has_a_name_of_its_own(encoder, key):
    names = coordinate_names(encoder)
    assert len(set(names)) == len(names) == vectors(encoder.sample(key, (2,))).shape[1]


def test_coordinates_and_names_are_in_one_order(key):
    particles = averaged(2, key_dim=1).sample(key, (1, 1))
    named = dict(zip(coordinate_names(averaged(2, key_dim=1)), coordinates(particles)[0, 0], strict=True))
    assert named["f.value[1,0]"] == particles.f.value[0, 0, 1, 0]
    assert named["f.query[0,1]"] == particles.f.query[0, 0, 0, 1]
    assert named["h.w_out[1]"] == particles.h.w_out[0, 0, 1]
