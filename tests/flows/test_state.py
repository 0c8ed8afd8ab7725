"""The state of a flow's solver: packed, placed in a model again, and its vector field."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, bound, regression

import wgf
from wgf.flows._geometry import Lagrangian
from wgf.flows._state import field, start

GEOMETRY = Lagrangian()


@pytest.fixture(scope="module")
def case():
    """An objective, and a model with tracers at other depths."""
    keys = jax.random.split(jax.random.key(3), 3)
    objective = wgf.Objective(regression(keys[0], batch=3), 0.1)
    encoder = Matrix(objective.prompts.token_dim)
    law = wgf.measures.Gaussian(encoder, 0.5)
    tracers = law.layered(3, 4, keys[1]), law.layered(1, 2, keys[2])
    return objective, wgf.Transformer(encoder, law.layered(2, 3, keys[0])).with_tracers(*tracers)


def test_the_start_names_the_parts_of_the_model_with_zero_integrals(case):
    _, model = case
    named = start(GEOMETRY, model).named(GEOMETRY, model)
    np.testing.assert_array_equal(named["parameters"], model.measure.particles)
    for found, measure in zip(named["tracers"], model.tracers, strict=True):
        np.testing.assert_array_equal(found, measure.particles)
    assert named["dissipated"] == named["courant"] == 0


def test_a_model_without_tracers_has_none_in_its_state(case):
    model = case[1].with_tracers()
    state = start(GEOMETRY, model)
    assert state.tracers == []
    assert state.named(GEOMETRY, model)["tracers"] == ()


def test_a_state_is_placed_in_the_model(case):
    _, model = case
    state = jax.tree.map(lambda leaf: 2 * leaf, start(GEOMETRY, model))
    placed = state.place(GEOMETRY, model)
    np.testing.assert_array_equal(placed.measure.particles, 2 * model.measure.particles)
    for found, measure in zip(placed.tracers, model.tracers, strict=True):
        np.testing.assert_array_equal(found.particles, 2 * measure.particles)


def test_the_field_is_the_velocity_and_the_dissipation(case):
    objective, model = case
    rate = jax.jit(lambda state: field(0.0, state, (GEOMETRY, objective, model)))(start(GEOMETRY, model))
    velocity = wgf.velocity(objective, model)
    close = {"rtol": bound(1e-11, 1e-4), "atol": bound(1e-13, 1e-5)}
    np.testing.assert_allclose(rate.parameters[0].reshape(velocity.shape), velocity, **close)
    np.testing.assert_allclose(
        rate.dissipated, np.sum(np.asarray(model.measure.masses) * np.sum(velocity**2, axis=(2, 3))), **close
    )
    moved = rate.named(GEOMETRY, model)["tracers"]
    for found, expected in zip(moved, wgf.flows.tracer_velocity(objective, model), strict=True):
        np.testing.assert_allclose(found, expected, **close)


def test_the_field_does_not_depend_on_the_integrals(case):
    _, model = case
    state = start(GEOMETRY, model)
    later = jax.tree.map(jnp.copy, state).without_integrals()
    assert jax.tree.structure(later) == jax.tree.structure(state)
    filled = jax.tree.map(lambda leaf: leaf + 1, state).without_integrals()
    assert filled.dissipated == filled.courant == 0
    np.testing.assert_array_equal(filled.parameters[0], state.parameters[0] + 1)
