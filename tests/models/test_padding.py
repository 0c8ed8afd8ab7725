"""Transformers in the shape of larger ones: the same maps and flows, by one program."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, bound, encoders, programs, regression
from hypothesis import given, settings, strategies as st

import wgf
from wgf.flows import tracer_velocity
from wgf.flows._velocity import evaluate, geometry_of
from wgf.models._padding import pad, unpad


def problem(key, encoder=None, depth=2, width=3):
    """A small problem, and a Transformer with weights that differ."""
    prompts = regression(key, batch=4)
    encoder = averaged(prompts.token_dim) if encoder is None else encoder
    particles = wgf.measures.Gaussian(encoder, 0.7).layered(depth, width, key).particles
    weights = jax.random.dirichlet(key, jnp.full(width, 3.0), (depth,))
    objective = wgf.Objective(prompts, weight_decay=1e-2)
    return objective, wgf.Transformer(encoder, wgf.measures.Layered(particles, weights))


@pytest.mark.heavy
@settings(max_examples=bound(4, 2), deadline=None)
@given(depth=st.integers(1, 3), width=st.integers(1, 4), more=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_the_corner_is_the_model(depth, width, more):
    objective, model = problem(jax.random.key(depth), None, depth, width)
    padded = pad(model, depth + more[0], width + more[1])
    assert padded.measure.weights.shape == (depth + more[0], width + more[1])
    np.testing.assert_allclose(padded.measure.masses[:depth, :width], model.measure.masses, rtol=bound(1e-12, 1e-5))
    np.testing.assert_allclose(jnp.sum(padded.measure.masses), 1, rtol=bound(1e-12, 1e-5))
    found, expected = (evaluate(geometry_of(m), objective, m) for m in (padded, model))
    np.testing.assert_allclose(found.objective, expected.objective, rtol=bound(1e-12, 1e-5))
    np.testing.assert_allclose(found.outputs, expected.outputs, rtol=bound(1e-12, 1e-5), atol=bound(1e-13, 1e-6))
    corner = [velocity[:depth, :width] for velocity in found.velocity]
    for leaf, own in zip(corner, expected.velocity, strict=True):
        np.testing.assert_allclose(leaf, own, rtol=bound(1e-9, 1e-4), atol=bound(1e-12, 1e-6))


@pytest.mark.parametrize("name", encoders(5))
def test_any_encoder_may_be_padded(name, key):
    objective, model = problem(key, encoders(5)[name])
    padded, tokens = pad(model, 4, 5), objective.prompts.tokens
    np.testing.assert_allclose(padded(tokens), model(tokens), rtol=bound(1e-12, 1e-5), atol=bound(1e-13, 1e-6))


def test_layers_that_are_not_there_are_skipped_on_both_ways(key):
    """Particles that are no numbers would spoil all that is computed from them, were it multiplied by zero."""
    objective, model = problem(key)
    padded = pad(model, 4, 3)
    spoilt = padded.with_particles(jax.tree.map(lambda leaf: leaf.at[2:].set(jnp.nan), padded.measure.particles))

    def outputs(particles, model):
        return jnp.sum(model.with_particles(particles)(objective.prompts.tokens) ** 2)

    value, gradient = jax.value_and_grad(outputs)(spoilt.measure.particles, spoilt)
    expected, slope = jax.value_and_grad(outputs)(model.measure.particles, model)
    np.testing.assert_allclose(value, expected, rtol=bound(1e-12, 1e-5))
    for leaf, own in zip(*map(jax.tree.leaves, (gradient, slope)), strict=True):
        np.testing.assert_allclose(leaf[:2], own, rtol=bound(1e-9, 1e-4), atol=bound(1e-12, 1e-6))
        assert np.all(np.asarray(leaf[2:]) == 0)


def test_its_field_at_a_depth_is_that_of_the_model(key):
    """Layers that are padding take up no depth: tracers at all depths move as those of the model."""
    objective, model = problem(key)
    tracers = wgf.measures.Gaussian(model.encoder, 0.7).layered(5, 6, key)
    (expected,) = tracer_velocity(objective, model.with_tracers(tracers))
    (found,) = tracer_velocity(objective, pad(model, 4, 5).with_tracers(tracers))
    for leaf, own in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(leaf, own, rtol=bound(1e-9, 1e-4), atol=bound(1e-12, 1e-6))


def test_unpad_undoes_pad(key):
    _, model = problem(key)
    assert eqx.tree_equal(unpad(pad(model, 4, 6), 2, 3), model)
    assert eqx.tree_equal(eqx.filter_jit(lambda m: unpad(pad(m, 4, 6), 2, 3))(model), model)


def test_nothing_is_compiled_for_known_models(key):
    _, model = problem(key)
    with programs() as names:
        unpad(pad(model, 5, 7), 2, 3)
    assert not names


def test_what_pad_refuses(key):
    _, model = problem(key)
    with pytest.raises(ValueError, match="`depth` must be a whole number of at least 2; got 1"):
        pad(model, 1, 3)
    with pytest.raises(ValueError, match="`width` must be a whole number of at least 3; got 2"):
        pad(model, 2, 2)
