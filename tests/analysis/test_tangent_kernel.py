"""The tangent kernel, against gradients by hand, the flow's own rate, and prompts that it cannot tell apart."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, averaged, bound, regression

import wgf
from wgf.analysis import tangent_kernel

KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def problem():
    """Weighted prompts without weight decay, and a small Transformer."""
    drawn = regression(KEY, batch=4)
    prompts = wgf.prompts.Prompts(
        drawn.tokens, drawn.labels, weights=jnp.array([0.1, 0.2, 0.3, 0.4]), label_row=drawn.label_row
    )
    encoder = averaged(prompts.token_dim)
    return wgf.Objective(prompts), wgf.Transformer(encoder, wgf.measures.Gaussian(encoder).layered(2, 3, KEY))


def rate(objective, model):
    """-d log R / d tau along the flow, without the kernel: by the velocity and a directional derivative."""
    moved = wgf.velocity(objective, model)
    risk = lambda particles: objective.risk(model.with_particles(particles))  # noqa: E731
    value, slope = jax.jvp(risk, (model.measure.particles,), (moved,))
    return -slope / value


def test_one_matrix_by_hand():
    """T + W T / M summed over two layers of scalars: dy/dW is known."""
    tokens = jnp.array([[[0.0, 0.5]], [[0.0, -2.0]]])
    prompts = wgf.prompts.Prompts(tokens, jnp.zeros(2), label_row=0)
    encoder = Matrix(1)
    weights = jnp.array([[[[0.3]], [[0.1]]], [[[-0.2]], [[0.4]]]])
    model = wgf.Transformer(encoder, wgf.measures.Layered(weights))
    means = np.asarray(weights).mean(axis=(1, 2, 3))
    growth = np.prod(1 + means / 2)
    # y_b = H_b (1 + w_1 / 2)(1 + w_2 / 2), and each matrix has a quarter of the mass.
    slopes = [growth / (1 + mean / 2) / 2 / 2 for mean in means]
    scale = 4 * 2 * sum(slope**2 for slope in slopes)
    query = np.array([0.5, -2.0])
    found = tangent_kernel(wgf.Objective(prompts), model)
    np.testing.assert_allclose(found.matrix, scale * np.outer(query, query) / 2, rtol=bound(1e-12, 1e-5))
    np.testing.assert_allclose(found.greatest, scale * query @ query / 2, rtol=bound(1e-12, 1e-5))
    assert abs(found.least) < bound(1e-14, 1e-6)


def test_the_outputs_move_as_the_kernel_says(problem):
    objective, model = problem
    kernel, weights = tangent_kernel(objective, model), objective.prompts.weights
    moved = wgf.velocity(objective, model)
    outputs = lambda particles: objective.outputs(model.with_particles(particles))  # noqa: E731
    found, speed = jax.jvp(outputs, (model.measure.particles,), (moved,))
    slope = np.sqrt(weights) * (found - objective.prompts.labels)
    expected = -(np.asarray(kernel.matrix) @ slope) / np.sqrt(weights)
    np.testing.assert_allclose(speed, expected, rtol=bound(1e-9, 1e-3), atol=bound(1e-10, 1e-5))


def test_eigenvalues_are_those_of_the_matrix_and_bound_the_rate(problem):
    kernel = tangent_kernel(*problem)
    np.testing.assert_allclose(
        kernel.eigenvalues, np.linalg.eigvalsh(np.asarray(kernel.matrix)), atol=bound(1e-12, 1e-5) * kernel.greatest
    )
    assert 0 < kernel.least < kernel.greatest
    assert 2 * kernel.least <= rate(*problem) <= 2 * kernel.greatest


def test_masses_count_and_those_that_are_zero_do_not(problem):
    objective, model = problem
    measure = model.measure
    pad = lambda leaf: jnp.concatenate([leaf, leaf[:, :1], 2 * leaf[:, :1]], axis=1)  # noqa: E731
    # The first particle becomes two of half the weight, and one without weight joins.
    weights = jnp.array([[1 / 6, 1 / 3, 1 / 3, 1 / 6, 0.0]] * 2)
    split = wgf.Transformer(model.encoder, wgf.measures.Layered(jax.tree.map(pad, measure.particles), weights))
    expected = tangent_kernel(objective, model).matrix
    np.testing.assert_allclose(tangent_kernel(objective, split).matrix, expected, rtol=bound(1e-10, 1e-4))


@pytest.mark.heavy
def test_the_limit_too(problem):
    objective, model = problem
    gaussian = wgf.measures.Gaussian(model.encoder)
    limit = wgf.AveragedODE(model.encoder, gaussian.staged(8, KEY))
    kernel = tangent_kernel(objective, limit)
    assert 2 * kernel.least <= rate(objective, limit) <= 2 * kernel.greatest
    spectral = wgf.AveragedODE(model.encoder, gaussian.spectral(2, 8, KEY))
    kernel = tangent_kernel(objective, spectral)
    assert 2 * kernel.least <= rate(objective, spectral) <= 2 * kernel.greatest


def test_each_class_is_an_output(problem):
    objective, model = problem
    three = wgf.Objective(
        wgf.prompts.Prompts(objective.prompts.tokens, jnp.array([0, 1, 2, 0]), label_row=objective.prompts.label_row),
        loss=wgf.objective.CrossEntropy(),
        readout=wgf.objective.QueryRows(0, 3),
    )
    kernel = tangent_kernel(three, model)
    assert kernel.matrix.shape == (12, 12)
    assert kernel.eigenvalues.shape == (12,)


def test_more_outputs_than_numbers():
    """Three outputs of one number: two combinations do not move."""
    prompts = wgf.prompts.Prompts(jnp.array([[[0.0, 1.0]], [[0.0, 2.0]], [[0.0, 3.0]]]), jnp.zeros(3), label_row=0)
    model = wgf.Transformer(Matrix(1), wgf.measures.Layered(jnp.ones((1, 1, 1, 1))))
    kernel = tangent_kernel(wgf.Objective(prompts), model)
    np.testing.assert_array_equal(kernel.eigenvalues[:2], 0)
    assert kernel.greatest > 0


def test_many_particles_take_no_square_of_their_number():
    """A decomposition that held all right singular vectors would take 80 GB."""
    prompts = wgf.prompts.Prompts(jnp.array([[[0.0, 1.0]], [[0.0, 2.0]]]), jnp.zeros(2), label_row=0)
    model = wgf.Transformer(Matrix(1), wgf.measures.Layered(jnp.zeros((1, 100_000, 1, 1))))
    np.testing.assert_allclose(tangent_kernel(wgf.Objective(prompts), model).greatest, 5 / 2, rtol=bound(1e-10, 1e-4))


def test_under_jit_and_in_one_line(problem):
    kernel = tangent_kernel(*problem)
    jitted = eqx.filter_jit(tangent_kernel)(*problem)
    np.testing.assert_allclose(jitted.matrix, kernel.matrix, rtol=bound(1e-10, 1e-4))
    assert repr(kernel) == f"TangentKernel: 4 outputs, eigenvalues from {kernel.least:.3g} to {kernel.greatest:.3g}"
    assert repr(jax.eval_shape(lambda: kernel)).startswith("TangentKernel: ")


def test_what_has_no_kernel_is_refused(problem, unchecked):
    objective, model = problem
    with pytest.raises(ValueError, match=r"`objective` must be a wgf\.Objective; got"):
        tangent_kernel(lambda model: 0.0, model)
    with pytest.raises(ValueError, match=r"`model` must be a wgf\.Transformer or wgf\.AveragedODE; got"):
        tangent_kernel(objective, jnp.ones(3))
    grid = wgf.AveragedODE(Matrix(1), wgf.measures.Gaussian(Matrix(1)).eulerian(2, (8,), -4, 4))
    with pytest.raises(ValueError, match="`model` must hold particles, not weights on a grid: the kernel is a sum"):
        tangent_kernel(objective, grid)
    lost = model.with_particles(jax.tree.map(lambda leaf: leaf * jnp.nan, model.measure.particles))
    with pytest.raises(ValueError, match="must be finite"):
        tangent_kernel(objective, lost)
