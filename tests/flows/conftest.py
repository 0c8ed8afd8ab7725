"""Fixtures that the tests of this folder share."""

import jax
import pytest
from helpers import averaged, regression

import wgf


@pytest.fixture(scope="module")
def problem():
    key = jax.random.key(11)
    prompts = regression(key)
    encoder = averaged(prompts.token_dim)
    return wgf.Objective(prompts, 1e-2), encoder, wgf.measures.Gaussian(encoder, 0.7)
