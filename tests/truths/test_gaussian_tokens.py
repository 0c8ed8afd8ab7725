"""Gaussian tokens stay Gaussian under softmax attention: mean and covariance obey an ODE."""

import numpy as np
import pytest
from _truths import gaussian_moments, hermite_cloud
from _truths_models import cloud, weighted
from helpers import float64_only

pytestmark = float64_only

MEAN = np.array([0.3, -0.2])
COVARIANCE = np.array([[0.5, 0.1], [0.1, 0.3]])
VALUE = np.array([[0.4, -0.5], [0.3, 0.2]])
PRODUCT = np.array([[0.6, 0.3], [-0.4, 0.5]])
DEPTHS = np.linspace(0, 1, 5)


def moments(points, weights):
    """Mean `[..., d]` and covariance `[..., d, d]` of points `[..., d, n]`."""
    mean = points @ weights
    centred = points - mean[..., None]
    return mean, (centred * weights) @ np.swapaxes(centred, -1, -2)


def quadrature(points, steps=4):
    """The tokens of the Gauss–Hermite rule at `DEPTHS`, and the weights."""
    start, weights = hermite_cloud(MEAN, COVARIANCE, points)
    states = cloud(VALUE, PRODUCT, steps).trajectory(weighted(start, weights)[None], DEPTHS)
    return np.asarray(states)[:, 0, :2], weights


def test_weighted_tokens_follow_mean_and_covariance():
    """The tokens are a quadrature rule, whose weights enter the scores as logarithms: no sampling error."""
    states, weights = quadrature(12)
    for found, truth in zip(
        moments(states, weights), gaussian_moments(MEAN, COVARIANCE, VALUE, PRODUCT, DEPTHS), strict=True
    ):
        np.testing.assert_allclose(found, truth, rtol=0, atol=1e-10)
        assert np.abs(truth[-1] - truth[0]).max() > 0.05, "the law must move"
    # The map of the tokens is affine, up to tokens of next to no weight: this keeps a law Gaussian.
    start, roots = np.vstack([states[0], np.ones(len(weights))]).T, np.sqrt(weights)[:, None]
    affine = np.linalg.lstsq(roots * start, roots * states[-1].T)[0]
    np.testing.assert_allclose(roots * (start @ affine), roots * states[-1].T, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("points", "low", "high"), [(4, 1e-5, 1e-3), (8, 1e-10, 1e-7)])
def test_the_error_is_that_of_the_quadrature(points, low, high):
    """Four points see it, eight hardly: the agreement is not by construction."""
    states, weights = quadrature(points)
    error = np.abs(moments(states, weights)[1] - gaussian_moments(MEAN, COVARIANCE, VALUE, PRODUCT, DEPTHS)[1]).max()
    assert low < error < high


def test_sampled_tokens_approach_the_law_at_the_sampling_rate():
    random, counts, errors = np.random.default_rng(1), np.array([16, 64, 256]), []
    truth = gaussian_moments(MEAN, COVARIANCE, VALUE, PRODUCT, DEPTHS)[1][-1]
    for count in counts:
        points = MEAN[:, None] + np.linalg.cholesky(COVARIANCE) @ random.normal(size=(64, 2, count))
        weights = np.full(count, 1 / count)
        last = np.asarray(cloud(VALUE, PRODUCT, 1)(weighted(points, weights)))[:, :2]
        errors.append(np.sqrt(np.mean((moments(last, weights)[1] - truth) ** 2)))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope + 0.5) < 0.12, f"slope {slope} of errors {dict(zip(counts, errors, strict=True))}"
