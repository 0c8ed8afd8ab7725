"""What both models share: tracers, trajectories, and the arguments that they refuse."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, averaged, bound, relative

import wgf
from wgf.measures import coordinates


def models(key):
    """A limit and two finite models of one encoder."""
    encoder = averaged(5)
    initial = wgf.measures.Gaussian(encoder, 0.5)
    limit = wgf.AveragedODE(encoder, initial.spectral(2, 4, key))
    return (
        limit,
        wgf.Transformer(encoder, initial.layered(2, 3, key)),
        wgf.Transformer(encoder, initial.layered(4, 2, key)),
    )


def test_with_tracers_carries_the_measures_of_the_models(key):
    limit, first, second = models(key)
    tracers = limit.with_tracers(first, second).tracers
    assert [t.weights.shape for t in tracers] == [(2, 3), (4, 2)]
    np.testing.assert_array_equal(coordinates(tracers[1].particles), coordinates(second.measure.particles))


def test_with_tracers_replaces_earlier_ones(key):
    limit, first, second = models(key)
    replaced = limit.with_tracers(first).with_tracers(second)
    assert [t.weights.shape for t in replaced.tracers] == [(4, 2)]
    assert limit.with_tracers(first).with_tracers().tracers == ()


def test_tracers_do_not_change_the_model(key):
    limit, first, _ = models(key)
    tokens = wgf.prompts.linear_regression(key, batch=2, examples=2, dim=2).tokens
    np.testing.assert_array_equal(limit(tokens), limit.with_tracers(first)(tokens))


def test_tracers_of_a_spectral_measure_are_refused(key):
    limit, first, _ = models(key)
    with pytest.raises(
        ValueError, match=r"`with_tracers` takes models whose measure is .*Layered, or .*; got Spectral"
    ):
        limit.with_tracers(first, limit)


def test_tracers_of_another_encoder_are_refused(key):
    limit, _, _ = models(key)
    other = wgf.Transformer(Matrix(5), wgf.measures.EncoderLaw(Matrix(5)).layered(2, 3, key))
    with pytest.raises(ValueError, match=r"(?s)`with_tracers` takes models of the same encoder, Average.*; got Matrix"):
        limit.with_tracers(other)


def test_trajectories_begin_at_the_prompts_and_end_at_the_output(case, key):
    prompts, encoder, measure = case
    finite = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(4, 5, key))
    for model, most in ((wgf.AveragedODE(encoder, measure), bound(1e-10, 1e-6)), (finite, bound(1e-14, 1e-6))):
        path = model.trajectory(prompts.tokens, jnp.linspace(0, 1, 9))
        assert path.shape == (9, *prompts.tokens.shape)
        assert relative(path[0], prompts.tokens) < most
        assert relative(path[-1], model(prompts.tokens)) < most


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
