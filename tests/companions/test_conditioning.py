"""The conditioning of residual models: its theory against what gradients and flows do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import bound, residual_problem
from jax.flatten_util import ravel_pytree

import wgf
from wgf.companions import Spectrum, SquareLoss, attention_spectrum, linear_rate_bound, spectrum, step_size

DIM, HIDDEN = 6, 12


def test_a_spectrum_is_that_of_numpy(key):
    matrix = jax.random.normal(key, (3, 5, 7))
    values = np.linalg.svd(np.asarray(matrix), compute_uv=False)
    found = spectrum(matrix)
    np.testing.assert_allclose(found.least, values[:, -1], rtol=bound(1e-12, 2e-6))
    np.testing.assert_allclose(found.greatest, values[:, 0], rtol=bound(1e-12, 2e-6))
    np.testing.assert_allclose(
        found.condition, [np.linalg.cond(m) for m in np.asarray(matrix)], rtol=bound(1e-12, 2e-6)
    )


def test_a_condition_number_ends_where_rounding_begins():
    assert Spectrum(jnp.asarray(0.0), jnp.asarray(3.0)).condition == pytest.approx(bound(2.0**52, 2.0**23))


@pytest.fixture(scope="module")
def slack():
    """The instantaneous rate over the guaranteed one, of a loss and a model; compiled once for each kind."""

    @eqx.filter_jit
    def slack(loss, model):
        value, gradient = eqx.filter_value_and_grad(lambda m: loss(m))(model)
        squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient))
        return squares / value, linear_rate_bound(loss, model)

    return slack


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("depth", [1, 3])
def test_the_loss_falls_at_least_at_the_guaranteed_rate(residual, depth, slack):
    """Drawn anywhere, scaled up and down: the inequality holds at every point, not along training alone."""
    for seed in range(12):
        loss, model = residual_problem(seed, depth=depth, residual=residual)
        scale = 4.0 ** (seed % 4 - 2)
        model = eqx.tree_at(lambda m: m.blocks.w_out, model, scale * model.blocks.w_out)
        rate, guaranteed = slack(loss, model)
        assert guaranteed <= rate, (seed, guaranteed, rate)
        # Three layers without residual connections may leave rank one, to rounding: then nothing is guaranteed.
        assert guaranteed > 0 or (depth > 1 and not residual), seed


def test_the_guaranteed_rate_is_attained():
    """A linear network without outer weights to train but W_1: W_2 orthogonal, the error in the worst direction."""
    dim = 4
    tokens = jnp.diag(jnp.array([3.0, 2.0, 1.0, 0.5]))[None]
    _, model = residual_problem(0, dim=dim, hidden=dim, residual=True, slope=1.0)
    zero, eye = jnp.zeros((1, dim, dim)), 0.7 * jnp.eye(dim)[None]
    names = ("query", "key", "value", "w_in", "w_out")
    model = eqx.tree_at(lambda m: [getattr(m.blocks, name) for name in names], model, (zero, zero, zero, zero, eye))
    error = jnp.zeros((1, dim, dim)).at[0, 3, 1].set(1.0)
    loss = SquareLoss(tokens, model(tokens) - error)
    guaranteed = linear_rate_bound(loss, model)
    np.testing.assert_allclose(guaranteed, 2 * 0.5**2 * 0.7**2, rtol=bound(1e-12, 2e-6))
    gradient = eqx.filter_grad(lambda m: loss(m))(model)
    np.testing.assert_allclose(jnp.sum(gradient.blocks.w_in**2) / loss(model), guaranteed, rtol=bound(1e-12, 2e-6))


@pytest.mark.parametrize("sizes", [{"length": DIM + 1}, {"hidden": DIM - 1}, {"prompts": 2}])
def test_nothing_is_guaranteed_outside_the_conditions(sizes):
    assert linear_rate_bound(*residual_problem(0, **sizes)) == 0


def test_hot_attention_loses_rank_without_the_residual_connection_alone():
    """σ_min(B) falls as 1/T without the connection, and tends to a positive limit with it."""
    temperatures = 2.0 ** jnp.arange(5, 12, 2)
    least = {}
    for residual in (True, False):
        loss, model = residual_problem(5, residual=residual)

        def at(temperature, loss=loss, model=model):
            return attention_spectrum(SquareLoss(loss.tokens, loss.targets, temperature), model).least[0]

        least[residual] = np.asarray(jax.vmap(at)(temperatures))
    slopes = np.diff(np.log(least[False])) / np.diff(np.log(temperatures))
    np.testing.assert_allclose(slopes[-3:], -1, atol=0.1, err_msg=str(least))
    assert np.ptp(least[True]) < 0.02 * least[True][0], least


def test_weyl_bounds_what_the_residual_connection_saves():
    for seed in range(4):
        loss, model = residual_problem(seed)
        _, bare = residual_problem(seed, residual=False)
        np.testing.assert_array_equal(bare.blocks.value, model.blocks.value)
        least = attention_spectrum(loss, model).least[0]
        assert least >= spectrum(loss.tokens[0]).least - attention_spectrum(loss, bare).greatest[0]


@pytest.fixture(scope="module")
def trained():
    """A small model trained to its global minimum by the flow, for six times of the slowest direction."""
    loss, model = residual_problem(7, length=3)
    taus = jnp.linspace(0.0, 6 / least_eigenvalue(loss, model), 25)
    return loss, wgf.flow(loss, model, taus, rtol=bound(1e-7, 1e-6), atol=bound(1e-10, 1e-8))


def least_eigenvalue(loss, model):
    """Of the tangent kernel J Jᵀ, by NumPy."""
    flat, unravel = ravel_pytree(eqx.filter(model, eqx.is_inexact_array))

    def outputs(flat):
        return eqx.combine(unravel(flat), model)(loss.tokens, loss.temperature).ravel()

    jacobian = np.asarray(jax.jit(jax.jacobian(outputs))(flat), float)
    return np.linalg.eigvalsh(jacobian @ jacobian.T)[0]


def test_the_late_rate_is_the_least_eigenvalue_of_the_tangent_kernel(trained):
    """Near the minimum dL/dτ = −‖Jᵀe‖² with e' = −J Jᵀ e: the rate is twice the least eigenvalue of J Jᵀ."""
    loss, solution = trained
    least = least_eigenvalue(loss, solution.model_at(-1))
    late = -np.diff(np.log(solution.objective)) / np.diff(solution.taus)
    # In float32 the loss is down at rounding from two thirds of the way on.
    last = bound(-1, len(late) // 2)
    np.testing.assert_allclose(late[last], 2 * least, rtol=0.03, err_msg=str(late))


def test_the_flow_obeys_the_theorem_and_the_energy_identity(trained):
    loss, solution = trained
    bounds = jax.vmap(lambda model: linear_rate_bound(loss, model))(solution.models)
    assert np.all(solution.dissipation >= bounds * solution.objective)
    drop = solution.objective[0] - solution.objective
    np.testing.assert_allclose(solution.dissipated[1:], drop[1:], rtol=1e-4)
    assert solution.objective[-1] < 1e-5 * solution.objective[0]


@pytest.mark.slow
def test_gradient_descent_is_the_flow_to_first_order_in_the_step():
    loss, model = residual_problem(8, length=3)
    end, step = 0.1, float(step_size(loss, model, 0.02))
    exact = wgf.flow(loss, model, jnp.array([0.0, end]), rtol=1e-9, atol=1e-12).objective[-1]
    counts = np.ceil(end / step) * 2.0 ** np.arange(4)
    errors = []
    for count in counts.astype(int):
        stepped = wgf.train(loss, model, optax.sgd(end / count), steps=int(count))
        assert stepped.result == wgf.flows.RESULTS.successful
        errors.append(abs(float(stepped.objective[-1] - exact)))
    slope = np.polyfit(np.log(end / counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(1, abs=0.1), list(zip(counts, errors, strict=True))


def test_the_learning_rate_is_in_units_of_the_greatest_singular_value():
    loss, model = residual_problem(9, depth=3)
    greatest = max(np.linalg.norm(b[0], 2) for b in np.asarray(model.attended(loss.tokens, 2.0)))
    np.testing.assert_allclose(step_size(loss, model, 0.1), 0.1 / greatest**2, rtol=1e-10)
