"""Tokens at equal angles on the sphere: softmax attention moves their inner product by a scalar ODE."""

import jax.numpy as jnp
import numpy as np
import pytest
from _truths import equiangular_tokens, overlaps
from _truths_models import OnSphere, sphere, sphere_law
from helpers import float64_only

import wgf

pytestmark = float64_only

# Tokens n, dimension, β, time, first inner product. The second starts near the simplex, ρ = −1/(n − 1).
CASES = [(5, 6, 1.0, 3.0, 0.1), (5, 6, 2.0, 4.0, -0.2), (3, 3, 9.0, 4.0, 0.3)]


@pytest.mark.parametrize(("count", "dim", "beta", "end", "start"), CASES)
def test_the_inner_products_follow_the_scalar_ode(count, dim, beta, end, start):
    tokens, depths = jnp.asarray(equiangular_tokens(count, dim, start)), np.linspace(0, 1, 6)
    states = np.asarray(sphere(dim, beta, end, 16).trajectory(tokens[None], depths))[:, 0]
    truth = overlaps(start, beta, count, end * depths)[:, None, None]
    gram = np.where(np.eye(count, dtype=bool), 1.0, truth)
    np.testing.assert_allclose(np.swapaxes(states, 1, 2) @ states, gram, rtol=0, atol=2e-9)
    assert abs(truth[-1, 0, 0] - start) > 0.01, "the tokens must move"


def test_layers_converge_at_order_one():
    count, dim, beta, end, start = CASES[0]
    tokens = jnp.asarray(equiangular_tokens(count, dim, start))
    encoder = OnSphere(wgf.encoders.SoftmaxAttention(dim, key_dim=dim))
    truth = overlaps(start, beta, count, np.array([0, end]))[-1]
    depths, errors = np.array([32, 64, 128, 256]), []
    for depth in depths:
        last = np.asarray(wgf.Transformer(encoder, sphere_law(dim, beta, end, depth))(tokens[None]))[0]
        errors.append(abs(last[:, 0] @ last[:, 1] - truth))
    slope = np.polyfit(np.log(depths), np.log(errors), 1)[0]
    assert abs(slope + 1) < 0.1, f"slope {slope} of errors {dict(zip(depths, errors, strict=True))}"
