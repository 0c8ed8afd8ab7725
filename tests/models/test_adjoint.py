"""The adjoint p_ρ of both models at the ends of depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, bound, regression, relative

import wgf


@pytest.mark.heavy
def test_adjoint_ends_at_the_derivative_of_the_loss(key):
    prompts = regression(key)
    encoder = averaged(prompts.token_dim)
    objective = wgf.Objective(prompts)
    for model in (
        wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(3, 4, key)),
        wgf.AveragedODE(encoder, wgf.measures.Gaussian(encoder, 0.7).spectral(2, 4, key)),
    ):
        adjoint = objective.adjoint(model)
        expected = np.zeros(prompts.tokens.shape)
        expected[:, prompts.label_row, -1] = objective.outputs(model) - prompts.labels
        np.testing.assert_allclose(adjoint.costates(1.0), expected, atol=bound(1e-8, 1e-5))
        np.testing.assert_allclose(adjoint.tokens(1.0), model(prompts.tokens), atol=bound(1e-7, 1e-5))
        np.testing.assert_allclose(adjoint.tokens(0.0), prompts.tokens, atol=bound(1e-12, 1e-6))


@pytest.mark.heavy
def test_adjoint_at_depth_zero_is_the_derivative_in_the_prompt(key):
    prompts = regression(key)
    encoder = averaged(prompts.token_dim)
    objective = wgf.Objective(prompts)
    for model, most in (
        (wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(3, 4, key)), bound(1e-12, 1e-5)),
        (
            wgf.AveragedODE(encoder, wgf.measures.Gaussian(encoder, 0.7).spectral(2, 4, key), steps=16),
            bound(1e-7, 1e-5),
        ),
    ):

        def loss(tokens, model=model):
            return jnp.sum((model(tokens)[:, 2, -1] - prompts.labels) ** 2) / 2

        assert relative(objective.adjoint(model).costates(0.0), jax.grad(loss)(prompts.tokens)) < most
