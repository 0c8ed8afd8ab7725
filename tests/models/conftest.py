"""Fixtures that the tests of this folder share."""

import pytest
from helpers import averaged, regression

import wgf


@pytest.fixture
def case(key):
    prompts = regression(key, batch=3)
    encoder = averaged(prompts.token_dim)
    return prompts, encoder, wgf.measures.Gaussian(encoder, 0.7).spectral(3, 5, key)
