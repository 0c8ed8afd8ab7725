"""The conditional gradient: out of a planted point to the global minimum, a history that is true, bad arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, bound, regression, scalar_problem

import wgf
from wgf.analysis import conditional_gradient
from wgf.flows import RosenbrockW
from wgf.measures import Layered

DECAY = 3e-3


def neurons(prompts):
    """The objective and the encoder of one layer of neurons, where Q is convex in ρ."""
    return wgf.Objective(prompts, DECAY), wgf.encoders.Perceptron(prompts.token_dim, jnp.tanh)


def planted(encoder, width):
    """All neurons at 0, where an odd activation lets none of them move."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros((1, width, *leaf.shape)), encoder.sample(jax.random.key(0), ()))
    return wgf.Transformer(encoder, Layered(zeros))


@pytest.fixture(scope="module")
def escaped():
    """The way out of the planted point."""
    objective, encoder = neurons(regression(jax.random.key(1)))
    return objective, conditional_gradient(objective, planted(encoder, 8), key=jax.random.key(2), rounds=24, mass=0.5)


@pytest.mark.heavy
def test_it_leads_from_a_planted_point_to_the_global_minimum(escaped):
    """Where Q is convex the certificate bounds what is left to gain. A long flow of many neurons does not beat it."""
    objective, history = escaped
    assert history.certificate[0] < -1
    # In float32 rounding of the stiff flow limits the certificate.
    assert history.certificate[-1] >= -bound(1e-2, 5e-2)
    assert history.converged == (history.certificate[-1] >= -1e-2)
    _, encoder = neurons(objective.prompts)
    start = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 1.0).layered(1, 64, jax.random.key(3)))
    end = wgf.flow(objective, start, [0.0, 10 / DECAY], solver=RosenbrockW(), rtol=1e-3, atol=1e-5, throw=False)
    assert history.objective[-1] < 1.02 * float(end.objective[-1])
    assert history.objective[-1] < 0.5 * history.objective[0]


@pytest.mark.heavy
def test_the_history_is_that_of_the_model(escaped):
    objective, history = escaped
    assert np.all(history.falls >= -1e-5 * history.objective[1:])
    np.testing.assert_allclose(objective(history.model), history.objective[-1], rtol=bound(1e-9, 1e-5))
    np.testing.assert_allclose(objective.risk(history.model), history.risk[-1], rtol=bound(1e-9, 1e-4))
    np.testing.assert_allclose(history.model.measure.weights.sum(axis=1), 1, rtol=1e-6)
    assert history.particles[-1].max() == history.model.measure.width
    assert history.born[0].all()
    rounds = len(history.kept)
    assert len(history.steps) == rounds == len(history.objective) - 1
    assert history.gap.shape == history.support.shape == (rounds + 1, 1)
    # The part that new particles close is a part of the gap.
    assert np.all(history.gap <= history.support + 1e-6 * history.objective[:, None])


@pytest.mark.heavy
def test_a_history_is_one_line(escaped):
    _, history = escaped
    text = repr(history)
    assert text.startswith(f"ConditionalGradient: {len(history.kept)} rounds, Q {history.objective[0]:.4g} → ")
    assert text.endswith(f" per depth, {'converged' if history.converged else 'not above -0.01 Q'}")
    assert "\n" not in text


def scalar_model(measure=None, weight=1.0):
    particles = weight * jnp.ones((2, 3, 1, 1))
    return wgf.Transformer(Matrix(1), Layered(particles)) if measure is None else wgf.AveragedODE(Matrix(1), measure)


@pytest.mark.heavy
def test_at_the_minimum_no_round_is_made():
    """For h = W T all particles of the minimum are equal, and a long flow leads there."""
    objective = scalar_problem(0.5)
    end = wgf.flow(objective, scalar_model(), [0.0, 60.0], rtol=1e-6).model_at(-1)
    history = conditional_gradient(objective, end, key=jax.random.key(0), starts=2, spare=2)
    assert history.converged
    assert history.falls.shape == (0,)
    assert history.masses.shape == history.born.shape == (0, 2)
    np.testing.assert_array_equal(history.model.measure.particles, end.measure.particles)
    assert repr(history).startswith("ConditionalGradient: 0 rounds, Q ")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tolerance": 0.0}, "`tolerance` must be above 0 and below 1; got 0"),
        ({"mass": 1.0}, "`mass` must be above 0 and below 1; got 1"),
        ({"rounds": 0}, "`rounds` must be a whole number of at least 1; got 0"),
        ({"spare": -1}, "`spare` must be a whole number of at least 0; got -1"),
        ({"tau": 0.0}, r"`tau` must be positive; got 0\.0"),
        ({"starts": 1}, "`starts` must be a whole number of at least 2; got 1"),
    ],
)
def test_bad_arguments_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        conditional_gradient(scalar_problem(0.5), scalar_model(), key=jax.random.key(0), **options)


def test_models_that_cannot_be_changed_are_refused():
    objective, key = scalar_problem(0.5), jax.random.key(0)
    spectral = scalar_model(wgf.measures.Spectral(jnp.ones((2, 3, 1, 1))))
    with pytest.raises(ValueError, match=r"`model` must hold particles of its own at each depth.*got Spectral"):
        conditional_gradient(objective, spectral, key=key)
    carrying = scalar_model().with_tracers(Layered(jnp.ones((1, 1, 1, 1))))
    with pytest.raises(ValueError, match="`model` must carry no tracers; got 1"):
        conditional_gradient(objective, carrying, key=key)
    with pytest.raises(ValueError, match=r"`tau` must be given if the objective's `weight_decay` is 0; got None"):
        conditional_gradient(scalar_problem(0.0), scalar_model(), key=key)
