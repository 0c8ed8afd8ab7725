"""Estimates from parts and whole: identities that hold exactly, and the textbook's table of quantiles."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

import wgf

Estimate = wgf.analysis.Estimate


@pytest.fixture(scope="module")
def parts():
    """Eight part means, at three places; all parts together have the mean of the means."""
    return jnp.asarray(np.random.default_rng(5).normal(size=(8, 3)) + np.array([0.0, 10.0, -3.0]))


def test_a_mean_has_the_textbook_standard_error_and_no_bias(parts):
    estimate = Estimate(parts.mean(axis=0), parts)
    np.testing.assert_allclose(estimate.mean, parts.mean(axis=0))
    np.testing.assert_allclose(estimate.standard_error, np.sqrt(parts.var(axis=0) / 7), rtol=bound(1e-12, 1e-5))
    np.testing.assert_allclose(estimate.bias, 0, atol=bound(1e-14, 1e-6))
    np.testing.assert_allclose(estimate.error, estimate.standard_error, rtol=bound(1e-12, 1e-5))


def test_a_square_has_the_variance_of_the_mean_as_its_bias(parts):
    """E[m̄²] = μ² + Var(m̄): for a square the estimated bias is the squared standard error of the mean, exactly."""
    mean = Estimate(parts.mean(axis=0), parts)
    square = Estimate(parts.mean(axis=0) ** 2, parts**2)
    np.testing.assert_allclose(square.bias, mean.standard_error**2, rtol=bound(1e-9, 1e-4))
    np.testing.assert_allclose(square.error**2, square.standard_error**2 + square.bias**2, rtol=bound(1e-12, 1e-5))


def test_the_interval_is_students(parts):
    estimate = Estimate(parts.mean(axis=0), parts)
    low, high = estimate.interval()
    np.testing.assert_allclose((high + low) / 2, estimate.value, rtol=bound(1e-12, 1e-5))
    np.testing.assert_allclose((high - low) / 2, 2.3646243 * estimate.standard_error, rtol=bound(1e-7, 1e-4))
    low, high = estimate.interval(confidence=0.5)
    np.testing.assert_allclose((high - low) / 2, 0.7111418 * estimate.standard_error, rtol=bound(1e-7, 1e-4))


def test_quantiles_are_those_of_the_tables():
    found = [wgf.analysis.student_quantile(r) for r in (2, 4, 8, 1_000_000)]
    np.testing.assert_allclose(found, [12.7062, 3.1824, 2.3646, 1.9600], atol=5e-5)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 1.5])
def test_a_confidence_outside_0_and_1_is_refused(confidence, parts):
    with pytest.raises(ValueError, match="`confidence` must lie between 0 and 1; got"):
        Estimate(parts[0], parts).interval(confidence)
