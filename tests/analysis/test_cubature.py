import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import regression
from scipy.optimize import lsq_linear

import wgf
from wgf.analysis._cubature import _ride, nearest_weights
from wgf.encoders import Perceptron
from wgf.measures import Gaussian, SignPairs, Whitened


def draw(seed, count=60, moments=5):
    """Rows of moments with a constant, masses, and the moments of a law nearby."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.normal(size=(count, moments)), np.ones((count, 1))], axis=1)
    masses = rng.uniform(0.5, 1.5, count)
    masses /= masses.sum()
    return rows, masses, rng


@pytest.mark.parametrize("size", [0.1, 0.8], ids=["all free", "some at zero"])
def test_nearest_weights_match_and_are_the_nearest(size):
    rows, masses, rng = draw(0)
    target = masses @ rows + np.append(size * rng.normal(size=5) / 2, 0.0)
    factors = nearest_weights(rows, masses, target)
    assert factors.min() >= 0
    assert (factors.min() == 0) == (size > 0.5), factors.min()
    np.testing.assert_allclose((masses * factors) @ rows, target, atol=1e-10)
    # SciPy's bounded least squares with the constraints as heavy rows.
    heavy = 1e5
    scaled = np.concatenate([np.diag(np.sqrt(masses)), heavy * (rows * masses[:, None]).T])
    found = lsq_linear(scaled, np.concatenate([np.sqrt(masses), heavy * target]), bounds=(0, np.inf), tol=1e-14)
    excess = masses @ (factors - 1) ** 2 - masses @ (found.x - 1) ** 2
    assert -1e-6 < excess < 0.02 * (masses @ (found.x - 1) ** 2) + 1e-6, excess


def test_moments_out_of_reach_are_refused():
    rows, masses, _ = draw(1)
    with pytest.raises(ValueError, match="`share` must leave room for weights that are not negative"):
        nearest_weights(rows, masses, np.array([50.0, 0, 0, 0, 0, 1]))


@pytest.fixture(scope="module")
def piloted():
    """A problem, its law, and a pilot flow."""
    key = jax.random.key(3)
    prompts = regression(key, batch=2, examples=2, dim=1)
    encoder = Perceptron(prompts.token_dim, jnp.tanh)
    objective = wgf.Objective(prompts, weight_decay=1e-2)
    law = Gaussian(encoder, 0.8, SignPairs())
    start = wgf.AveragedODE(encoder, law.staged(8, key))
    return objective, law, wgf.flow(objective, start, jnp.array([0.0, 1.0, 2.0]), rtol=1e-2)


@pytest.fixture(scope="module")
def reweighted(piloted):
    """A sample, a base, and the sample with its weights; the features are few enough to be matched all."""
    objective, law, pilot = piloted
    sample, base = (law.staged(m, jax.random.key(m)) for m in (128, 512))
    return sample, base, wgf.analysis.cubature(objective, pilot, sample, base, tied=2, share=0.5)


def means(features, measure):
    """The features' means over the measure, `[r]`, and their means times depth."""
    masses = measure.depth_weights[:, None] * measure.weights
    depths = 2 * measure.depths - 1
    return jnp.einsum("ij,ijr->r", masses, features), jnp.einsum("ij,i,ijr->r", masses, depths, features)


@pytest.mark.slow
def test_features_are_matched_exactly(piloted, reweighted):
    objective, _, pilot = piloted
    sample, base, weighted = reweighted
    features, others = (_ride(objective, pilot, measure.particles) for measure in (weighted, base))
    for before, after, target in zip(
        means(features, sample), means(features, weighted), means(others, base), strict=True
    ):
        assert jnp.max(jnp.abs(before - target)) > 1e-3
        np.testing.assert_allclose(after, target, atol=1e-7)


def test_weights_are_a_law_shared_by_pairs(reweighted):
    weights = reweighted[2].weights
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    assert jnp.all(weights >= 0)
    assert jnp.max(jnp.abs(weights - 1 / 128)) > 1e-4
    np.testing.assert_array_equal(weights[:, ::2], weights[:, 1::2])


def test_particles_stay_what_they_were(reweighted):
    sample, _, weighted = reweighted
    assert eqx.tree_equal(sample.particles, weighted.particles)


def test_a_sample_that_is_its_own_base_keeps_its_weights(piloted):
    objective, law, pilot = piloted
    sample = law.staged(32, jax.random.key(0))
    weighted = wgf.analysis.cubature(objective, pilot, sample, sample, tied=2, share=0.5)
    np.testing.assert_allclose(weighted.weights, sample.weights, atol=1e-12)


def test_other_nodes_than_the_pilots_are_refused(piloted):
    objective, law, pilot = piloted
    good, bad = law.staged(4, jax.random.key(0)), law.spectral(2, 4, jax.random.key(0))
    for name, pair in (("sample", (bad, good)), ("base", (good, bad))):
        with pytest.raises(ValueError, match=f"`{name}` must have the pilot's depth nodes"):
            wgf.analysis.cubature(objective, pilot, *pair)


def test_a_width_that_ties_do_not_divide_is_refused(piloted):
    objective, law, pilot = piloted
    sample = law.staged(4, jax.random.key(0))
    with pytest.raises(ValueError, match="`tied` must divide the width of the sample, 4; got 3"):
        wgf.analysis.cubature(objective, pilot, sample, sample, tied=3)


def test_tracers_in_the_sample_are_refused(piloted):
    objective, law, pilot = piloted
    sample = law.staged(4, jax.random.key(0))
    tracing = wgf.measures.Staged(sample.particles, jnp.array([0.0, 0.4, 0.3, 0.3]))
    with pytest.raises(ValueError, match="`sample` must have positive weights, and no tracers; got a weight of zero"):
        wgf.analysis.cubature(objective, pilot, tracing, sample)


@pytest.mark.slow
def test_the_cubature_errs_less_than_the_sample_it_reweights(piloted):
    objective, law, pilot = piloted
    encoder = pilot.models.encoder
    white = Gaussian(encoder, law.scale, Whitened(SignPairs()))

    def outputs(measure):
        return wgf.flow(objective, wgf.AveragedODE(encoder, measure), jnp.array([0.0, 2.0])).outputs[-1]

    errors = np.empty((4, 2))
    exact = np.mean([outputs(white.staged(4096, jax.random.key(100 + i))) for i in range(4)], axis=0)
    for seed in range(4):
        sample, base = (law.staged(128, jax.random.key(seed)), white.staged(2048, jax.random.key(50 + seed)))
        weighted = wgf.analysis.cubature(objective, pilot, sample, base, tied=2)
        errors[seed] = [np.sqrt(np.mean((outputs(m) - exact) ** 2)) for m in (sample, weighted)]
    plain, better = np.sqrt(np.mean(errors**2, axis=0))
    assert better < plain / 1.5, errors
