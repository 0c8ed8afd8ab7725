"""The velocity from the adjoint p_ρ against automatic differentiation of the discretised objective."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, bound, encoders, regression, relative

import wgf


def gradient_of_objective(objective, model):
    """−(1/(w a)) ∂Q/∂θ by plain automatic differentiation, nothing of the library's velocity in it."""
    gradient = jax.grad(lambda p: objective(model.with_particles(p)))(model.measure.particles)
    masses = model.measure.depth_weights[:, None] * model.measure.weights
    return jax.tree.map(lambda g: -g / masses.reshape(masses.shape + (1,) * (g.ndim - 2)), gradient)


def velocity_from_adjoint(objective, model, *, discrete=False):
    """−∇δQ/δρ at every particle's own depth, through p_ρ."""
    first_variation = objective.first_variation(model, discrete=discrete)
    rows = [
        first_variation.gradient(jax.tree.map(lambda leaf, i=i: leaf[i], model.measure.particles), depth)
        for i, depth in enumerate(model.measure.depths)
    ]
    return jax.tree.map(lambda *leaves: -jnp.stack(leaves), *rows)


# The others are in the short command by their own tests, in tests/encoders.
SHORT = ("average", "perceptron without bias", "user's own")


@pytest.mark.parametrize(
    "name", [name if name in SHORT else pytest.param(name, marks=pytest.mark.heavy) for name in encoders(5)]
)
def test_finite_velocities_agree(key, name):
    prompts = regression(key)
    encoder = encoders(prompts.token_dim)[name]
    objective = wgf.Objective(prompts, 1e-2)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(3, 4, key))
    truth = gradient_of_objective(objective, model)
    assert relative(wgf.velocity(objective, model), truth) < bound(1e-12, 1e-5)
    assert relative(velocity_from_adjoint(objective, model), truth) < bound(1e-6, 1e-4)


def smooth_limit(encoder, key, nodes, steps=24):
    """A limit whose particles vary with depth, smoothly: cos and sin of t between two samples."""
    law = wgf.measures.Gaussian(encoder, 0.7)
    first, second = (law.spectral(nodes, 6, k).particles for k in jax.random.split(key))
    t = wgf.measures.Spectral(first).depths
    mix = jax.tree.map(
        lambda a, b: (
            a * jnp.cos(t).reshape(-1, *(1,) * (a.ndim - 1)) + b * jnp.sin(t).reshape(-1, *(1,) * (a.ndim - 1))
        ),
        first,
        second,
    )
    return wgf.AveragedODE(encoder, wgf.measures.Spectral(mix), steps=steps)


@pytest.mark.heavy
@pytest.mark.parametrize("nodes", [1, 4])
def test_limit_velocity_is_the_gradient_of_the_discretised_objective(key, nodes):
    prompts = regression(key)
    model = smooth_limit(averaged(prompts.token_dim), key, nodes, steps=3)
    objective = wgf.Objective(prompts, 1e-2)
    assert relative(wgf.velocity(objective, model), gradient_of_objective(objective, model)) < bound(1e-12, 1e-5)


@pytest.mark.slow
def test_limit_velocities_agree_as_nodes_grow(key):
    """The adjoint gives the field at a node, differentiation its projection on polynomials: one limit."""
    prompts = regression(key)
    objective = wgf.Objective(prompts, 1e-2)
    encoder = averaged(prompts.token_dim)
    errors = {}
    for nodes in (2, 3, 4, 5):
        measure = wgf.measures.Gaussian(encoder, 0.5).spectral(nodes, 6, key)
        model = wgf.AveragedODE(encoder, measure, steps=16)
        errors[nodes] = relative(velocity_from_adjoint(objective, model), wgf.velocity(objective, model))
    ratios = [errors[n] / errors[n + 1] for n in (2, 3, 4)]
    assert errors[5] < bound(1e-6, 1e-4), f"velocity differences {errors}"
    assert min(ratios) > 5, f"velocity differences {errors}"


@pytest.mark.heavy
def test_projected_adjoint_velocity_is_the_gradient_at_any_nodes(key):
    """With few nodes the two agree once the adjoint's field is projected: v_i = (1/w_i) ∫ ℓ_i(t) v(θ(t), t) dt."""
    prompts = regression(key)
    objective = wgf.Objective(prompts, 1e-2)
    model = smooth_limit(averaged(prompts.token_dim), key, 3, steps=48)
    first_variation = objective.first_variation(model)
    points, weights = np.polynomial.legendre.leggauss(12)
    projected = jax.tree.map(jnp.zeros_like, model.measure.particles)
    for t, weight in zip((points + 1) / 2, weights / 2, strict=True):
        assert isinstance(model.measure, wgf.measures.Spectral)
        basis = model.measure.basis(t) * weight / model.measure.depth_weights
        field = first_variation.gradient(model.measure.at(t)[0], t)
        projected = jax.tree.map(lambda total, g, basis=basis: total - jnp.tensordot(basis, g, 0), projected, field)
    assert relative(projected, gradient_of_objective(objective, model)) < bound(1e-6, 1e-4)


# Ralston's method gives each step two stages, Kutta's four; the end of a step and the start of the next share a node.
@pytest.mark.parametrize(
    ("solver", "steps"),
    [
        (wgf.measures.EqualEighths(), 1),
        (wgf.measures.ThreeEighths(), 2),
        pytest.param(diffrax.Ralston(), 3, marks=pytest.mark.heavy),
        pytest.param(diffrax.Bosh3(), 2, marks=pytest.mark.heavy),
    ],
    ids=["equal eighths", "3/8 rule", "Ralston", "Bosh3"],
)
def test_the_discrete_first_variation_gives_the_velocity_of_the_computed_objective(key, solver, steps):
    prompts = regression(key)
    encoder = averaged(prompts.token_dim)
    objective = wgf.Objective(prompts, 1e-2)
    law = wgf.measures.Gaussian(encoder, 1.5)
    model = wgf.AveragedODE(encoder, law.staged(4, key, solver=solver, steps=steps))
    truth = gradient_of_objective(objective, model)
    assert relative(velocity_from_adjoint(objective, model, discrete=True), truth) < bound(1e-12, 1e-5)
    # With these few steps the interpolated one differs visibly.
    assert relative(velocity_from_adjoint(objective, model), truth) > 1e-3


def test_the_discrete_first_variation_is_the_slope_of_the_computed_objective(key):
    """Mass ε moved at one node with two stages changes Q by w ε (δQ/δρ(new) − δQ/δρ(old))."""
    prompts = regression(key)
    encoder = averaged(prompts.token_dim)
    objective = wgf.Objective(prompts, 1e-2)
    law = wgf.measures.Gaussian(encoder, 1.5)
    model = wgf.AveragedODE(encoder, law.staged(2, key, solver=wgf.measures.ThreeEighths(), steps=2))
    node = 3
    assert model.measure.depths[node] == 0.5

    def moved(amount):
        weights = model.measure.weights.at[node].add(amount * jnp.array([1.0, -1.0]))
        return objective(eqx.tree_at(lambda m: m.measure.weights, model, weights))

    variation = objective.first_variation(model, discrete=True)
    particles, _ = model.measure.at(0.5)
    new, old = (variation(jax.tree.map(lambda leaf, j=j: leaf[j], particles), 0.5) for j in range(2))
    expected = model.measure.depth_weights[node] * (new - old)
    np.testing.assert_allclose(jax.grad(moved)(0.0), expected, rtol=bound(1e-11, 1e-4))


def test_other_measures_have_one_first_variation(key):
    prompts = regression(key)
    encoder = averaged(prompts.token_dim)
    objective, law = wgf.Objective(prompts, 1e-2), wgf.measures.Gaussian(encoder, 0.7)
    for model in (
        wgf.Transformer(encoder, law.layered(2, 4, key)),
        wgf.AveragedODE(encoder, law.spectral(2, 4, key)),
    ):
        particles, _ = model.measure.at(0.5)
        plain, discrete = (
            objective.first_variation(model, discrete=choice).gradient(particles, 0.5) for choice in (False, True)
        )
        jax.tree.map(np.testing.assert_array_equal, plain, discrete)


def test_the_choice_of_a_first_variation_is_true_or_false(key, unchecked):
    prompts = regression(key)
    encoder = averaged(prompts.token_dim)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder).layered(1, 2, key))
    with pytest.raises(ValueError, match="`discrete` must be True or False; got 'no'"):
        wgf.Objective(prompts).first_variation(model, discrete="no")


@pytest.mark.parametrize("make", ["finite", "limit"])
def test_first_variation_is_the_derivative_of_the_objective_in_the_measure(key, make):
    """Mass ε moved to a new particle changes Q by ε (δQ/δρ(new) − mean of δQ/δρ), to first order."""
    prompts = regression(key)
    encoder = averaged(prompts.token_dim)
    objective = wgf.Objective(prompts, 1e-2)
    law = wgf.measures.Gaussian(encoder, 0.7)
    if make == "finite":
        model = wgf.Transformer(encoder, law.layered(2, 4, key))
    else:
        model = wgf.AveragedODE(encoder, law.spectral(1, 4, key), steps=16)

    def moved(amount):
        shift = jnp.zeros(4).at[0].add(amount) - amount * jnp.array([0.0, 1, 1, 1]) / 3
        measure = type(model.measure)(model.measure.particles, model.measure.weights[0] + shift)
        return objective(type(model)(encoder, measure))

    first_variation = objective.first_variation(model)
    t, w = np.polynomial.legendre.leggauss(8)
    depths, weights = ((t + 1) / 2, w / 2) if make == "limit" else (model.measure.depths, np.full(2, 0.5))
    expected = 0.0
    for depth, weight in zip(depths, weights, strict=True):
        at = model.measure.at(depth)[0]
        values = jax.vmap(first_variation, in_axes=(0, None))(at, depth)
        expected += weight * float(values[0] - values[1:].mean())
    step = bound(1e-5, 3e-3)
    measured = float(moved(step) - moved(-step)) / (2 * step)
    assert abs(measured - expected) < bound(1e-6, 3e-3) * max(1, abs(expected)), (measured, expected)
