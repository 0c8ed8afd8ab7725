"""The limit model: solvers in depth, trajectories, and solves that fail."""

import diffrax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
import scipy.linalg
from helpers import Matrix, bound, float64_only, relative

import wgf

ROOT = optx.Newton(rtol=bound(1e-8, 1e-4), atol=bound(1e-10, 1e-6))
SOLVERS = {
    "Heun, 512 steps": ({"solver": diffrax.Heun(), "steps": 512}, bound(3e-6, 1e-5)),
    "Bosh3, 64 steps": ({"solver": diffrax.Bosh3(), "steps": 64}, bound(1e-6, 1e-5)),
    "Dopri8, 8 steps": ({"solver": diffrax.Dopri8(), "steps": 8}, bound(1e-9, 1e-5)),
    "Tsit5, adaptive": (
        {"controller": diffrax.PIDController(rtol=bound(1e-9, 1e-5), atol=bound(1e-11, 1e-7))},
        bound(1e-7, 1e-4),
    ),
    "Kvaerno5, implicit": ({"solver": diffrax.Kvaerno5(root_finder=ROOT), "steps": 24}, bound(1e-6, 1e-5)),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_agree(case, name):
    prompts, encoder, measure = case
    options, most = SOLVERS[name]
    reference = wgf.AveragedODE(encoder, measure, steps=64)(prompts.tokens)
    error = relative(wgf.AveragedODE(encoder, measure, **options)(prompts.tokens), reference)
    assert error < most, error


@float64_only
def test_tsit5_converges_in_depth_steps_at_fifth_order(case):
    prompts, encoder, measure = case
    reference = wgf.AveragedODE(encoder, measure, steps=96)(prompts.tokens)
    steps = np.array([2, 4, 8, 16])
    errors = [relative(wgf.AveragedODE(encoder, measure, steps=int(n))(prompts.tokens), reference) for n in steps]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert -5.8 < slope < -4.4, f"slope {slope}, errors {errors}"


def test_limit_trajectory_solves_the_ode(case):
    prompts, encoder, measure = case
    model = wgf.AveragedODE(encoder, measure, steps=64)
    step = bound(1e-4, 1e-2)
    before, at, after = model.trajectory(prompts.tokens, jnp.array([0.4 - step, 0.4, 0.4 + step]))
    assert relative((after - before) / (2 * step), model.field(0.4, at)) < bound(1e-6, 1e-3)


def test_layered_measure_in_the_limit_model(case, key):
    """The averaged ODE of a finite linear measure is a product of matrix exponentials, one a layer."""
    prompts, _, _ = case
    encoder = Matrix(prompts.token_dim)
    measure = wgf.measures.Gaussian(encoder, 0.7).layered(4, 3, key)
    expected = np.asarray(prompts.tokens)
    for layer in np.asarray(measure.particles).mean(axis=1):
        expected = np.einsum("ij,bjn->bin", scipy.linalg.expm(layer / 4), expected)
    # Steps that end where layers do, by a method with no stage at a step's end.
    model = wgf.AveragedODE(encoder, measure, solver=diffrax.Bosh3(), steps=64)
    error = relative(model(prompts.tokens), expected)
    assert error < 1e-5, error


def test_adaptive_solve_that_runs_out_of_steps_raises(case):
    prompts, encoder, measure = case
    tight = diffrax.PIDController(rtol=1e-12, atol=1e-14)
    with pytest.raises(RuntimeError, match="maximum number of solver steps"):
        wgf.AveragedODE(encoder, measure, controller=tight, steps=3)(prompts.tokens)


def test_a_root_finder_that_fails_raises(case):
    prompts, encoder, measure = case
    solver = diffrax.Kvaerno5(root_finder=optx.Newton(rtol=bound(1e-19, 1e-11), atol=0.0))
    with pytest.raises(RuntimeError, match="nonlinear solver"):
        wgf.AveragedODE(encoder, measure, solver=solver, steps=2)(prompts.tokens)


def test_root_finder_is_used(case):
    """An implicit solver of a linear field in one step is the rational function it should be."""
    prompts, _, _ = case
    encoder = Matrix(prompts.token_dim)
    w = 0.3 * jnp.eye(prompts.token_dim)
    solver = diffrax.ImplicitEuler(root_finder=optx.Newton(rtol=bound(1e-10, 1e-5), atol=bound(1e-12, 1e-7)))
    model = wgf.AveragedODE(encoder, wgf.measures.Spectral(w[None, None]), solver=solver, steps=1)
    assert relative(model(prompts.tokens), prompts.tokens / (1 - 0.3)) < bound(1e-9, 1e-5)
