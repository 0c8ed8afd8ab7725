"""The PDE on a grid: the finite-volume rate, closed forms, energy, agreement with particles, the Gibbs law."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Matrix, bound, grid_wasserstein, scalar_mean, scalar_problem, scalar_variance
from scipy.stats import norm

import wgf
from wgf.flows._velocity import evaluate, geometry_of

TAUS = np.array([0.0, 0.7, 2.0])
DECAY, SPREAD = 0.3, 0.5


# Closed forms: a linear encoder on scalar tokens keeps a Gaussian law Gaussian


def line(cells, nodes=1, box=5.0):
    """The limit on a line: N(0, SPREAD²) on a grid."""
    law = wgf.measures.Gaussian(Matrix(1), SPREAD)
    return wgf.AveragedODE(Matrix(1), law.eulerian(nodes, (cells,), -box, box), steps=4)


@pytest.fixture(scope="module")
def objective():
    return scalar_problem(DECAY)


def test_a_flow_on_a_grid_may_be_part_of_a_compiled_program(objective):
    def flow(decay):
        return wgf.flow(wgf.Objective(objective.prompts, decay), line(24), [0.0, 1.0]).objective

    assert jax.eval_shape(flow, 0.1).shape == (2,)


CELLS = (24, 48, 96, 192)


@pytest.fixture(scope="module")
def refinement(objective):
    """Solutions at σ = 0 and 0.2 on four grids: one program a grid, since a temperature is data."""
    return {
        (cells, sigma): wgf.flow(objective, line(cells), TAUS, temperature=sigma, rtol=1e-6)
        for cells in CELLS
        for sigma in (0.0, 0.2)
    }


@pytest.mark.heavy
@pytest.mark.parametrize(("sigma", "low", "high"), [(0.0, -2.25, -1.75), (0.2, -2.5, -1.75)])
def test_law_converges_to_the_closed_form_at_second_order(objective, refinement, sigma, low, high):
    """With diffusion the order tends to 2 from above on these grids."""
    mean = scalar_mean(objective, TAUS)[-1]
    law = norm(mean, np.sqrt(scalar_variance(SPREAD**2, DECAY, sigma, TAUS)[-1]))
    assert mean > 0.25, "the case must move"
    errors = [grid_wasserstein(refinement[n, sigma].model_at(-1).measure, law.ppf) for n in CELLS]
    slope = np.polyfit(np.log(CELLS), np.log(errors), 1)[0]
    assert low < slope < high, (slope, errors)
    assert errors[-1] < 2e-3, errors
    outputs = np.exp(mean) * objective.prompts.tokens[:, 0, -1]
    np.testing.assert_allclose(refinement[192, sigma].outputs[-1], outputs, rtol=0, atol=2e-4)


@pytest.mark.heavy
@pytest.mark.parametrize("sigma", [0.0, 0.2])
def test_mass_positivity_and_energy(refinement, sigma):
    solution = refinement[96, sigma]
    weights = solution.models.measure.weights
    assert jnp.min(weights) >= 0
    np.testing.assert_allclose(weights.sum(axis=2), 1, rtol=0, atol=bound(1e-14, 1e-6))
    entropy = np.array([solution.model_at(i).measure.entropy() for i in range(len(TAUS))])
    energy = solution.objective - sigma * entropy
    np.testing.assert_allclose(energy[0] - energy, solution.dissipated, rtol=0, atol=1e-5 * solution.dissipated[-1])
    assert jnp.all(jnp.diff(energy) < 0), energy


@pytest.mark.heavy
def test_errors_of_time_steps_are_below_those_of_the_grid(objective, refinement):
    loose = wgf.flow(objective, line(96), TAUS, rtol=1e-3)
    change = jnp.max(jnp.abs(loose.outputs - refinement[96, 0.0].outputs))
    error = jnp.max(jnp.abs(refinement[96, 0.0].outputs - refinement[192, 0.0].outputs))
    assert change < error / 5, (change, error)


@pytest.mark.heavy
def test_tracers_ride_in_the_field_of_the_grid(objective, refinement):
    """In closed form they follow the mean and contract: X_τ(x) = m(τ) + e^(−λτ) x."""
    finite = wgf.Transformer(Matrix(1), wgf.measures.Gaussian(Matrix(1), SPREAD).layered(2, 3, jax.random.key(1)))
    solution = wgf.flow(objective, line(48).with_tracers(finite), TAUS)
    expected = scalar_mean(objective, TAUS)[-1] + np.exp(-DECAY * TAUS[-1]) * finite.measure.particles
    np.testing.assert_allclose(solution.models.tracers[0].particles[-1], expected, atol=5e-3)
    with pytest.raises(ValueError, match="`model` must not have tracers at `temperature` > 0"):
        wgf.flow(objective, line(48).with_tracers(finite), TAUS, temperature=0.1)
    with pytest.raises(ValueError, match="`limit` lives on a grid, so it has no samples"):
        wgf.gap(wgf.flow(objective, finite, TAUS), refinement[48, 0.0], unpaired=True)


# Rest


def test_the_flow_rests_at_the_gibbs_law_of_the_first_variation(objective):
    """log a_j + δQ/δρ(θ_j)/σ is constant, with δQ/δρ from the adjoint, which the flow does not use."""
    sigma = 0.4
    solution = wgf.flow(objective, line(24), [0.0, 20.0, 60.0], temperature=sigma, rtol=1e-3)
    model = solution.model_at(-1)
    values = jax.vmap(objective.first_variation(model), in_axes=(0, None))(model.measure.particles[0], 0.5)
    np.testing.assert_allclose(model.measure.weights[0], jax.nn.softmax(-values / sigma), rtol=1e-4)
    assert solution.dissipation[-1] < bound(1e-15, 1e-6)
    assert jnp.max(values) - jnp.min(values) > 3 * sigma, "the law must not be flat"


def test_noise_fills_empty_cells_and_keeps_masses_positive(objective):
    """All mass begins in one cell, whose neighbours are empty: the log of zero must do no harm."""
    corner = jnp.array([[5.0]])
    start = wgf.measures.Eulerian(-corner, corner, jnp.zeros((1, 24)).at[0, 10].set(1.0))
    model = wgf.AveragedODE(Matrix(1), start, steps=4)
    solution = wgf.flow(objective, model, [0.0, 1e-3, 1.0], temperature=0.4, rtol=1e-3)
    weights = solution.models.measure.weights
    assert jnp.min(weights) >= 0
    assert jnp.all(weights[-1] > 0)
    np.testing.assert_allclose(weights.sum(axis=2), 1, rtol=0, atol=bound(1e-14, 1e-6))
    assert jnp.all(jnp.isfinite(solution.dissipation))


# Steps


def test_steps_keep_to_the_courant_condition(objective):
    """A first step a hundred times too long is repeated; the others are as long as the condition allows."""
    model = line(48)
    courant = float(evaluate(geometry_of(model), objective, model).courant)
    solution = wgf.flow(objective, model, [0.0, 1.0], dt0=100 / courant, rtol=1.0)
    assert int(solution.stats["num_rejected_steps"]) >= 1
    # The field weakens as the mean nears its goal: fewer steps than at the initial rate, but not by far.
    assert 0.3 * courant < int(solution.stats["num_accepted_steps"]) < 1.3 * courant
    assert jnp.min(solution.models.measure.weights) >= 0


@pytest.mark.slow
def test_other_solvers_stay_positive_too(objective, refinement):
    """Tsit5 is not strong-stability-preserving; steps that leave masses below zero are repeated all the same."""
    solution = wgf.flow(objective, line(24), TAUS, solver=diffrax.Tsit5())
    np.testing.assert_allclose(solution.objective, refinement[24, 0.0].objective, rtol=1e-4)
    assert jnp.min(solution.models.measure.weights) >= 0


@pytest.mark.slow
def test_gradient_through_the_flow_is_the_finite_difference(objective):
    def final(scale):
        law = wgf.measures.Gaussian(Matrix(1), scale).eulerian(1, (16,), -3.0, 3.0)
        model = wgf.AveragedODE(Matrix(1), law, steps=1)
        return wgf.flow(objective, model, [0.0, 0.3], temperature=0.1, rtol=1e-3, max_steps=64).objective[-1]

    step = 1e-5
    difference = (final(0.5 + step) - final(0.5 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(final)(0.5), difference, rtol=1e-3)


def test_an_optimiser_takes_no_grid(objective):
    with pytest.raises(ValueError, match="`model` must hold particles or parameters, not weights on a grid"):
        wgf.train(objective, line(24), optax.sgd(0.1), steps=1)


# Three coordinates: a neuron on scalar tokens, h = a tanh(b T + c)


def neurons():
    x = jnp.linspace(-1.5, 1.5, 4)
    tokens = jnp.stack([jnp.zeros(4), x], axis=1)[:, None]
    prompts = wgf.prompts.Prompts(tokens, x + jnp.sin(2 * x), label_row=0)
    return wgf.Objective(prompts, 0.05), wgf.measures.Gaussian(wgf.encoders.Perceptron(1), 0.8)


def gauss_particles(law, points, box):
    """The law confined to a box, as particles at the points of a tensor Gauss rule: exact to rounding, no sample."""
    x, w = np.polynomial.legendre.leggauss(points)
    w = w * np.exp(-((box * x / 0.8) ** 2) / 2)
    grid = box * np.stack(np.meshgrid(x, x, x, indexing="ij"), -1).reshape(-1, 3)
    weights = np.einsum("i,j,k->ijk", w, w, w).ravel()
    neuron = wgf.encoders._perceptron.Neuron(grid[None, :, 1:2], grid[None, :, 2:3], grid[None, :, 0])
    return wgf.measures.Spectral(neuron, weights / weights.sum())


def three_errors(cells, points, box=3.2, tau=2.0):
    """Errors in Q and the second moment against particles, relative to their change; mass and energy by the way."""
    objective, law = neurons()
    encoder = law.encoder
    truth = wgf.flow(objective, wgf.AveragedODE(encoder, gauss_particles(law, points, box), steps=1), [0.0, tau])
    moment = truth.model_at(-1).measure.second_moment()
    drop = truth.objective[0] - truth.objective[-1]
    errors = []
    for n in cells:
        grid = law.eulerian(1, (n, n, n), -box, box)
        solution = wgf.flow(objective, wgf.AveragedODE(encoder, grid, steps=1), [0.0, tau])
        final = solution.model_at(-1).measure
        errors.append([abs(solution.objective[-1] - truth.objective[-1]), abs(final.second_moment() - moment)])
        np.testing.assert_allclose(final.weights.sum(), 1, rtol=0, atol=bound(1e-13, 1e-6))
        assert jnp.min(final.weights) >= 0
        np.testing.assert_allclose(solution.dissipated[-1], solution.objective[0] - solution.objective[-1], rtol=1e-4)
    return np.array(errors, float) / np.array([float(drop), float(moment)])


@pytest.mark.heavy
def test_particles_and_grid_agree_in_three_dimensions():
    errors = three_errors([12], points=13)
    assert 0 < errors[0, 0] < 0.08, errors
    assert 0 < errors[0, 1] < 0.1, errors


@pytest.mark.slow
def test_particles_and_grid_agree_at_second_order_in_three_dimensions():
    cells = [12, 16, 20, 24]
    errors = three_errors(cells, points=16)
    slopes = np.polyfit(np.log(cells), np.log(errors), 1)[0]
    np.testing.assert_allclose(slopes, -2, atol=0.4, err_msg=str(errors))
