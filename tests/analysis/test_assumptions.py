"""Measured assumptions of encoders whose properties are known."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, averaged, bound, regression

import wgf
from wgf._random import purpose
from wgf.encoders import Perceptron, SoftmaxAttention


@cache
def measured(name, samples=256):
    prompts = regression(jax.random.key(1), batch=12)
    dim = prompts.token_dim
    encoder = {
        "relu": Perceptron(dim, jax.nn.relu),
        "relu without bias": Perceptron(dim, jax.nn.relu, use_bias=False),
        "squared relu": Perceptron(dim, lambda x: jax.nn.relu(x) ** 2, use_bias=False),
        "tanh": Perceptron(dim, jnp.tanh),
        "identity": Perceptron(dim, lambda x: x, use_bias=False),
        "softmax": SoftmaxAttention(dim, key_dim=2),
        "average": averaged(dim),
        "matrix": Matrix(dim),
    }[name]
    return wgf.analysis.check_assumptions(encoder, prompts, key=jax.random.key(2), samples=samples)


@pytest.mark.parametrize(
    ("name", "degrees", "joint", "partial"),
    [
        ("relu", {"w_in": None, "w_out": 1.0, "bias": None}, 2.0, ("w_out",)),
        ("relu without bias", {"w_in": 1.0, "w_out": 1.0}, 2.0, ("w_out",)),
        ("squared relu", {"w_in": 2.0, "w_out": 1.0}, 3.0, ("w_out",)),
        ("tanh", {"w_in": None, "w_out": 1.0, "bias": None}, None, ("w_out",)),
        ("softmax", {"value": 1.0, "key": None, "query": None}, None, ("value",)),
        ("average", {"f.value": 1.0, "h.w_out": 1.0, "h.bias": None}, None, ("f.value", "h.w_out")),
        ("matrix", {"particle": 1.0}, 1.0, ("particle",)),
    ],
)
def test_degrees_of_homogeneity(name, degrees, joint, partial):
    found = measured(name)
    assert {leaf: found.homogeneity[leaf] for leaf in degrees} == degrees
    assert found.joint == joint
    assert found.partial == partial


@pytest.mark.parametrize(
    ("name", "tokens", "particles"),
    [("relu without bias", 1, 2), ("squared relu", 2, 3), ("tanh", 0, 1), ("softmax", 1, 1), ("matrix", 1, 1)],
)
def test_growth_exponents(name, tokens, particles):
    found = measured(name)
    np.testing.assert_allclose([found.token_growth, found.particle_growth], [tokens, particles], atol=0.02)


def test_the_gradient_of_relu_jumps_for_the_worst_but_not_on_average():
    found = measured("relu", samples=2048)
    assert -1.05 < found.worst.exponent < -0.95
    assert not found.worst.holds
    assert abs(found.mean.exponent) < 0.1
    assert found.mean.holds


@pytest.mark.parametrize("name", ["squared relu", "tanh", "softmax", "average"])
def test_smooth_gradients_are_lipschitz(name):
    found = measured(name)
    assert abs(found.worst.exponent) < 0.1
    assert abs(found.mean.exponent) < 0.1
    assert 0 < found.mean.constant < found.worst.constant


def test_the_mean_constant_of_squared_relu_is_its_closed_form():
    """∇_θ ⟨w relu(v·T)², R⟩ changes at the rate ‖H u‖ along a unit step u, with the Hessian H written out."""
    prompts = regression(jax.random.key(1), batch=12)
    sample_key, _, _, mean_key = jax.random.split(purpose(jax.random.key(2), "analysis.check_assumptions"), 4)
    w_in, w_out, _ = Perceptron(prompts.token_dim, jnp.tanh, use_bias=False).sample(sample_key, (256,))
    step = np.array(jax.random.normal(mean_key, (256, 2 * prompts.token_dim)))
    u_in, u_out = np.split(step / np.linalg.norm(step, axis=1, keepdims=True), 2, axis=1)
    t = np.asarray(prompts.tokens)
    signs = (-1.0) ** np.arange(t[0].size).reshape(t[0].shape)
    z, dz = (np.einsum("pd,bdn->pbn", v, t) for v in (np.asarray(w_in), u_in))
    s, ds = np.asarray(w_out) @ signs, u_out @ signs
    plus = np.maximum(z, 0)
    of_in = np.einsum("pbn,bdn->pbd", 2 * plus * ds[:, None] + 2 * (z > 0) * dz * s[:, None], t)
    of_out = np.einsum("dn,pbn->pbd", signs, 2 * plus * dz)
    rates = np.sqrt(np.sum(of_in**2 + of_out**2, axis=2))
    np.testing.assert_allclose(measured("squared relu").mean.constant, rates.mean(), rtol=1e-2)


def test_a_linear_encoder_cannot_tell_more_prompts_apart_than_a_token_has_entries():
    assert measured("identity").least_eigenvalue < bound(1e-25, 1e-10)
    assert measured("matrix").least_eigenvalue < bound(1e-25, 1e-10)
    assert measured("average").least_eigenvalue > 1e-8


def test_bad_arguments_are_named(key):
    prompts = regression(key)
    encoder = Matrix(prompts.token_dim)
    with pytest.raises(ValueError, match="`samples` must be a whole number of at least 16; got 3"):
        wgf.analysis.check_assumptions(encoder, prompts, key=key, samples=3)
    with pytest.raises(ValueError, match=r"`scale` must be positive; got -1\.0"):
        wgf.analysis.check_assumptions(encoder, prompts, key=key, scale=-1.0)
