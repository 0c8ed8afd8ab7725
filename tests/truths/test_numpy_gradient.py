"""A trained softmax Transformer against a gradient written by hand in NumPy and integrated by SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _truths import PlainTransformer, complex_step
from _truths_models import DECAY, attention_problem, difference, plain
from helpers import float64_only

import wgf

pytestmark = float64_only


@pytest.fixture(scope="module")
def case():
    """Q, the model, its NumPy twin, and what the twin's gradient takes: particles, labels, row."""
    objective, model, twin = attention_problem()
    labels, row = np.asarray(objective.prompts.labels), objective.prompts.label_row
    return objective, model, twin, (plain(model.measure.particles), labels, row)


def test_the_gradient_by_hand_is_that_of_the_complex_step(case):
    """No code of the library takes part: this proves the truth itself."""
    _, _, twin, (particles, labels, row) = case
    found = complex_step(lambda moved: twin.half_squares(moved, labels, row), particles)
    assert difference(twin.gradient(particles, labels, row), found) < 1e-13


def test_tokens_and_risk_are_those_of_numpy(case):
    objective, model, twin, (particles, labels, row) = case
    np.testing.assert_allclose(model(objective.prompts.tokens), twin.states(particles)[-1], rtol=0, atol=1e-13)
    np.testing.assert_allclose(objective.risk(model), twin.half_squares(particles, labels, row), rtol=1e-13)


def test_the_velocity_is_that_of_the_gradient_by_hand(case):
    objective, model, twin, data = case
    truth = twin.velocity(data[0], twin.gradient(*data), DECAY)
    assert difference(plain(wgf.velocity(objective, model)), truth) < 1e-12
    # The case sees every matrix: the speed of each is a good part of the greatest.
    fastest = max(np.abs(leaf).max() for leaf in truth.values())
    assert all(np.abs(leaf).max() > 0.02 * fastest for leaf in truth.values())


def test_the_flow_is_that_of_scipy(case):
    objective, model, twin, (particles, labels, row) = case
    truth = twin.flow(particles, labels, row, DECAY, 4.0)
    solution = wgf.flow(objective, model, np.array([0.0, 4.0]), rtol=1e-10, atol=1e-12)
    assert difference(plain(solution.model_at(-1).measure.particles), truth) < 1e-9
    assert difference(truth, particles) > 0.1, "the case must move"


def test_causal_heads_under_cross_entropy_have_the_gradient_of_the_complex_step():
    key, length = jax.random.key(3), 4
    tokens = jax.random.normal(key, (2, 3, length))
    labels = np.array([[0, 2, 1, 0], [1, 1, 2, 0]])
    encoder = wgf.encoders.Average(
        wgf.encoders.SoftmaxAttention(3, key_dim=2, mask=wgf.encoders.Causal()),
        wgf.encoders.Perceptron(3, jnp.sin),
    )
    model = wgf.Transformer(encoder, wgf.measures.Layered(encoder.sample(key, (2, 2))))
    objective = wgf.Objective(
        wgf.prompts.Prompts(tokens, labels, label_row=0),
        loss=wgf.objective.CrossEntropy(),
        readout=wgf.objective.EveryRows(0, 3),
    )
    seen = np.tri(length, dtype=bool).T
    twin = PlainTransformer(np.asarray(tokens), np.full(2, 0.5), np.full((2, 2), 0.5), seen, np.sin)
    particles = plain(model.measure.particles)
    np.testing.assert_allclose(objective(model), twin.cross_entropy(particles, labels), rtol=1e-13)
    gradient = complex_step(lambda moved: twin.cross_entropy(moved, labels), particles)
    assert difference(plain(wgf.velocity(objective, model)), twin.velocity(particles, gradient, 0.0)) < 1e-12
