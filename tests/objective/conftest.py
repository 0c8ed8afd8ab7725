"""Fixtures that the tests of this folder share."""

import pytest
from helpers import averaged, regression

import wgf


@pytest.fixture
def case(key):
    prompts = regression(key)
    encoder = averaged(prompts.token_dim)
    return prompts, wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(2, 3, key))
