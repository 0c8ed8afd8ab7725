"""Both models: solvers, depth, trajectories, and what they refuse."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
import scipy.linalg
from helpers import Matrix, averaged, bound, float64_only, regression, relative

import wgf
from wgf.solvers._constant_steps import march, march_densely


@pytest.fixture
def case(key):
    prompts = regression(key, batch=3)
    encoder = averaged(prompts.token_dim)
    return prompts, encoder, wgf.measures.Gaussian(encoder, 0.7).spectral(3, 5, key)


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


def test_alternating_halves_converge_to_the_limit_at_first_order(case, key):
    prompts, encoder, measure = case
    shared = jax.tree.map(lambda leaf: leaf[:1], measure.particles)
    limit = wgf.AveragedODE(encoder, measure, steps=64)(prompts.tokens)
    depths = np.array([8, 16, 32, 64])
    errors = []
    for depth in depths:
        layers = jax.tree.map(lambda leaf, depth=depth: jnp.repeat(leaf, depth, axis=0), shared)
        errors.append(relative(wgf.Transformer(encoder, wgf.measures.Layered(layers))(prompts.tokens), limit))
    slope = np.polyfit(np.log(depths), np.log(errors), 1)[0]
    assert -1.15 < slope < -0.85, f"slope {slope}, errors {errors}"


def test_trajectories_begin_at_the_prompts_and_end_at_the_output(case, key):
    prompts, encoder, measure = case
    finite = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(4, 5, key))
    for model, most in ((wgf.AveragedODE(encoder, measure), bound(1e-10, 1e-6)), (finite, bound(1e-14, 1e-6))):
        path = model.trajectory(prompts.tokens, jnp.linspace(0, 1, 9))
        assert path.shape == (9, *prompts.tokens.shape)
        assert relative(path[0], prompts.tokens) < most
        assert relative(path[-1], model(prompts.tokens)) < most


def test_finite_trajectory_is_linear_within_substeps(case, key):
    prompts, encoder, _ = case
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(2, 5, key))
    a, middle, b = model.trajectory(prompts.tokens, jnp.array([0.25, 0.375, 0.5]))
    assert relative(middle, (a + b) / 2) < bound(1e-13, 1e-6)


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


METHODS = {
    "Euler's rule of two": diffrax.Heun(),
    "first the same as last": diffrax.Tsit5(),
    "third order": diffrax.Bosh3(),
    "equal eighths": wgf.measures.EqualEighths(),
    "linear between steps": diffrax.Ralston(),
}


@pytest.mark.parametrize("ends", [(0, 1), (1, 0)], ids=["forward", "backward"])
@pytest.mark.parametrize("name", METHODS)
def test_constant_steps_and_what_lies_between_are_those_of_diffrax(name, ends, key):
    """Of an equation that depends on depth, both ways; the interpolation is the solver's own."""
    matrix, start = jax.random.normal(key, (3, 3)), jax.random.normal(key, (2, 3, 4))

    def field(depth, tokens):
        return jnp.cos(3 * depth) * jnp.tanh(matrix @ tokens)

    expected = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda depth, tokens, _: field(depth, tokens)),
        METHODS[name],
        *map(float, ends),
        (ends[1] - ends[0]) / 3,
        start,
        saveat=diffrax.SaveAt(dense=True),
    )
    found = jax.jit(lambda start: march_densely(field, METHODS[name], 3, start, *ends))(start)
    for depth in np.linspace(0, 1, 14):
        np.testing.assert_allclose(
            found.evaluate(depth), expected.evaluate(depth), rtol=bound(1e-12, 1e-5), atol=bound(1e-13, 1e-6)
        )
    if ends == (0, 1):
        np.testing.assert_allclose(
            march(field, METHODS[name], 3, start), expected.evaluate(1.0), rtol=bound(1e-12, 1e-5)
        )


def test_what_models_refuse(case, key, unchecked):
    prompts, encoder, measure = case
    layered = wgf.measures.Gaussian(encoder, 0.7).layered(2, 3, key)
    with pytest.raises(ValueError, match=r"`measure` must be a wgf.measures.Layered"):
        wgf.Transformer(encoder, measure)
    with pytest.raises(ValueError, match="`solver` must be a Diffrax solver"):
        wgf.AveragedODE(encoder, measure, solver="Tsit5")
    with pytest.raises(ValueError, match="`steps` must be a whole number of at least 1"):
        wgf.AveragedODE(encoder, measure, steps=0)
    for model in (wgf.AveragedODE(encoder, measure), wgf.Transformer(encoder, layered)):
        with pytest.raises(ValueError, match="`depths` must be a vector"):
            model.trajectory(prompts.tokens, jnp.array(0.5))


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
