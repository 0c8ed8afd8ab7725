"""The exactly solvable cases: a linear encoder, whose flow is a closed form or a scalar ODE solved by SciPy."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, bound
from scipy.integrate import solve_ivp

import wgf

DECAY = 0.02
TIGHT = {"rtol": bound(1e-10, 1e-6), "atol": bound(1e-12, 1e-8)}


@pytest.fixture(scope="module")
def scalar_prompts():
    """Scalar tokens: the query column alone is read, y = 1.7 H on three prompts."""
    h = jnp.array([0.5, 1.0, -0.8])
    tokens = jnp.stack([jnp.zeros(3), h], axis=1)[:, None]
    return wgf.prompts.Prompts(tokens, 1.7 * h, label_row=0)


def scalar_truth(prompts, start, taus, scale):
    """W̄(τ) by SciPy from du/dτ = −c E[(e^{cu} H − y) e^{cu} H] − λ u."""
    h, y = np.asarray(prompts.tokens[:, 0, -1]), np.asarray(prompts.labels)

    def field(tau, u):
        growth = np.exp(scale * u[0])
        return [-scale * np.mean((growth * h - y) * growth * h) - DECAY * u[0]]

    return solve_ivp(field, (taus[0], taus[-1]), [start], "DOP853", taus, rtol=1e-12, atol=1e-13).y[0]


@pytest.mark.parametrize(("half", "scale"), [(True, 0.5), (False, 1.0)])
def test_scalar_flow_follows_the_scalar_ode(scalar_prompts, key, half, scale):
    encoder = wgf.encoders.Average(wgf.encoders.Zero(), Matrix(1)) if half else Matrix(1)
    taus = np.linspace(0, 20, 11)
    model = wgf.AveragedODE(encoder, wgf.measures.Gaussian(encoder, 0.3).spectral(3, 16, key), steps=8)
    start = float(jnp.mean(jax.tree.leaves(model.measure.particles)[0][0]))
    solution = wgf.flow(wgf.Objective(scalar_prompts, DECAY), model, taus, **TIGHT)
    w = jax.tree.leaves(solution.models.measure.particles)[0]
    truth = scalar_truth(scalar_prompts, start, taus, scale)
    np.testing.assert_allclose(
        w.mean(axis=2)[..., 0, 0], np.repeat(truth[:, None], 3, 1), rtol=0, atol=bound(1e-6, 1e-5)
    )
    assert abs(truth[-1] - truth[0]) > 0.1, "the case must move"
    np.testing.assert_allclose(
        solution.outputs,
        np.exp(scale * truth)[:, None] * np.asarray(scalar_prompts.tokens[:, 0, -1]),
        rtol=0,
        atol=bound(1e-6, 1e-5),
    )


@pytest.fixture(scope="module")
def matrix_flow():
    key = jax.random.key(7)
    prompts = wgf.prompts.linear_regression(key, batch=5, examples=3, dim=2)
    encoder = Matrix(prompts.token_dim)
    model = wgf.AveragedODE(encoder, wgf.measures.Gaussian(encoder, 0.5).spectral(3, 12, key), steps=4)
    return wgf.flow(wgf.Objective(prompts, DECAY), model, np.linspace(0, 20, 6), **TIGHT)


def test_matrix_deviations_decay_by_weight_decay_alone(matrix_flow):
    w = matrix_flow.models.measure.particles
    deviations = w - w.mean(axis=2, keepdims=True)
    decay = np.exp(-DECAY * np.asarray(matrix_flow.taus))[:, None, None, None, None]
    np.testing.assert_allclose(deviations, decay * deviations[:1], rtol=0, atol=bound(1e-6, 1e-5))
    assert np.abs(w[-1].mean(axis=1) - w[0].mean(axis=1)).max() > 0.05, "the mean must move"


def test_finite_model_is_the_product_formula(key):
    prompts = wgf.prompts.linear_regression(key, batch=4, examples=3, dim=2)
    encoder = Matrix(prompts.token_dim)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.8).layered(7, 5, key))
    expected = np.asarray(prompts.tokens)
    for layer in np.asarray(model.measure.particles).mean(axis=1):
        expected = np.einsum("ij,bjn->bin", np.eye(prompts.token_dim) + layer / 7, expected)
    np.testing.assert_allclose(model(prompts.tokens), expected, rtol=0, atol=bound(1e-10, 1e-5))


def test_alternating_halves_are_the_product_formula(key):
    prompts = wgf.prompts.linear_regression(key, batch=4, examples=3, dim=2)
    encoder = wgf.encoders.Average(Matrix(prompts.token_dim), Matrix(prompts.token_dim))
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.8).layered(5, 3, key))
    f, h = (np.asarray(w).mean(axis=1) for w in model.measure.particles)
    expected, eye = np.asarray(prompts.tokens), np.eye(prompts.token_dim)
    for f_layer, h_layer in zip(f, h, strict=True):
        step = (eye + h_layer / 10) @ (eye + f_layer / 10)
        expected = np.einsum("ij,bjn->bin", step, expected)
    np.testing.assert_allclose(model(prompts.tokens), expected, rtol=0, atol=bound(1e-10, 1e-5))


@pytest.mark.heavy
def test_finite_error_falls_as_one_over_depth(scalar_prompts, key):
    """Equal particles: what is left of the distance to the limit is the discretisation of depth."""
    encoder, taus = Matrix(1), np.array([0.0, 5.0])
    objective = wgf.Objective(scalar_prompts, DECAY)
    truth = np.exp(scalar_truth(scalar_prompts, 0.2, taus, 1.0)[-1]) * np.asarray(scalar_prompts.tokens[:, 0, -1])
    depths = np.array([8, 16, 32, 64])
    errors = []
    for depth in depths:
        model = wgf.Transformer(encoder, wgf.measures.Layered(jnp.full((depth, 3, 1, 1), 0.2)))
        outputs = wgf.flow(objective, model, taus, rtol=bound(1e-8, 1e-6), atol=bound(1e-10, 1e-8)).outputs[-1]
        errors.append(np.sqrt(np.mean((outputs - truth) ** 2)))
    slope = np.polyfit(np.log(depths), np.log(errors), 1)[0]
    assert abs(slope + 1) < 0.1, f"slope {slope} of errors {dict(zip(depths, errors, strict=True))}"


@pytest.mark.parametrize("solver", [diffrax.Heun(), diffrax.Dopri5(), diffrax.Dopri8()])
def test_any_diffrax_solver_moves_the_flow(scalar_prompts, key, solver):
    encoder = Matrix(1)
    taus = np.array([0.0, 2.0, 4.0])
    model = wgf.AveragedODE(encoder, wgf.measures.Spectral(jnp.full((2, 4, 1, 1), 0.2)), steps=8)
    solution = wgf.flow(
        wgf.Objective(scalar_prompts, DECAY), model, taus, solver=solver, rtol=bound(1e-7, 1e-6), atol=bound(1e-9, 1e-8)
    )
    truth = scalar_truth(scalar_prompts, 0.2, taus, 1.0)
    np.testing.assert_allclose(solution.models.measure.particles[:, 0, 0, 0, 0], truth, rtol=0, atol=1e-5)
