"""The discrete adjoint: at the stages, of the solve as it is computed, and near the adjoint of the ODE for small steps.

That its first variation is the slope of Q is in tests/objective/test_first_variation.py.
"""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, averaged, bound, regression, relative

import wgf
from wgf.measures import Staged, ThreeEighths
from wgf.measures._staged import stage_nodes
from wgf.models._stage_adjoint import StageAdjoint


def constant(steps, solver=ThreeEighths()):  # noqa: B008 (an immutable module)
    """A linear limit whose law is the same at all depths: tokens and costates are exponentials."""
    matrix = 0.3 * jax.random.normal(jax.random.key(0), (3, 3))
    nodes = len(stage_nodes(solver, steps)[0])
    particles = jnp.broadcast_to(matrix, (nodes, 1, 3, 3))
    return matrix, wgf.AveragedODE(Matrix(3), Staged(particles, solver=solver, steps=steps))


def errors(steps):
    """Errors at the middle node against matrix exponentials: of tokens, and of costates."""
    matrix, model = constant(steps)
    tokens = jax.random.normal(jax.random.key(1), (2, 3, 4))
    found = model.discrete_adjoint(tokens, jnp.ones_like)
    flow, back = jax.scipy.linalg.expm(matrix / 2), jax.scipy.linalg.expm(matrix.T / 2)
    return relative(found.tokens(0.5), flow @ tokens), relative(found.costates(0.5), back @ jnp.ones_like(tokens))


def test_with_small_steps_it_is_the_adjoint_of_the_ode():
    few, many = errors(2), errors(8)
    assert max(many) < 2e-3
    assert all(fine < coarse / 3 for fine, coarse in zip(many, few, strict=True)), (few, many)


def test_stages_that_share_a_node_are_kept_apart_and_the_others_are_empty():
    _, model = constant(2)
    found = model.discrete_adjoint(jnp.ones((1, 3, 2)), jnp.ones_like)
    assert isinstance(found, StageAdjoint)
    # The end of the first step, and the start of the second.
    assert found.stage_tokens.shape == (7, 2, 1, 3, 2)
    filled = jnp.any(found.stage_costates != 0, axis=(2, 3, 4))
    np.testing.assert_array_equal(filled, [[True, number == 3] for number in range(7)])


def test_at_other_depths_it_is_that_of_the_nearest_node():
    _, model = constant(1, diffrax.Ralston())
    found = model.discrete_adjoint(jnp.ones((1, 3, 2)), jnp.ones_like)
    assert isinstance(found, StageAdjoint)
    np.testing.assert_allclose(found.depths, [0, 2 / 3], rtol=1e-6)
    np.testing.assert_array_equal(found.costates(0.9), found.costates(2 / 3))
    np.testing.assert_array_equal(found.tokens(0.1), found.tokens(0.0))


def test_its_first_variation_has_its_derivative_also_under_jit(key):
    prompts = regression(key, batch=3)
    encoder = averaged(prompts.token_dim)
    model = wgf.AveragedODE(encoder, wgf.measures.Gaussian(encoder, 0.7).staged(2, key, solver=ThreeEighths()))
    variation = wgf.Objective(prompts, 1e-2).first_variation(model, discrete=True)
    particle = encoder.sample(key, ())
    way, step = encoder.sample(jax.random.key(5), ()), bound(1e-5, 1e-2)
    ahead, behind = (
        variation(jax.tree.map(lambda x, d, sign=sign: x + sign * step * d, particle, way), 1 / 3) for sign in (1, -1)
    )
    for grad in (jax.grad, lambda f: jax.jit(jax.grad(f))):
        slope = jax.tree.map(jnp.vdot, grad(lambda p: variation(p, 1 / 3))(particle), way)
        expected = (ahead - behind) / (2 * step)
        np.testing.assert_allclose(sum(jax.tree.leaves(slope)), expected, rtol=bound(1e-7, 1e-2))


def test_the_end_of_the_adjoint_is_a_function(unchecked):
    _, model = constant(1)
    with pytest.raises(ValueError, match="`terminal` must be a function of the final tokens"):
        model.discrete_adjoint(jnp.ones((1, 3, 2)), 1.0)
