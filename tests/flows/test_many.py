"""Flows of Transformers of many sizes: those of the models by themselves, by fewer programs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, bound, programs, regression
from hypothesis import given, settings, strategies as st

import wgf
from wgf.flows._many import _kind, shared_shapes

TAUS = jnp.array([0.0, 0.5, 2.0])
SIZES = ((1, 2), (3, 4), (2, 3))
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def problem():
    prompts = regression(jax.random.key(0), batch=4)
    encoder = averaged(prompts.token_dim)
    law, keys = wgf.measures.Gaussian(encoder, 0.7), jax.random.split(jax.random.key(1), len(SIZES))
    models = [wgf.Transformer(encoder, law.layered(*size, key)) for size, key in zip(SIZES, keys, strict=True)]
    return wgf.Objective(prompts, weight_decay=1e-2), models


@pytest.mark.heavy
def test_the_flows_are_those_of_the_models_by_one_program(problem):
    objective, models = problem
    # Tracers at several depths, two of which lie within layers.
    tracers = wgf.Transformer(models[0].encoder, wgf.measures.Gaussian(models[0].encoder, 0.7).layered(4, 2, KEY))
    models = [model.with_tracers(tracers) for model in models]
    with programs() as names:
        found = wgf.flow_many(objective, models, TAUS, rtol=1e-6)
    assert names.count("jit(_flow)") == 1, names
    for model, solution in zip(models, found, strict=True):
        expected = wgf.flow(objective, model, TAUS, rtol=1e-6)
        # Rounding in float32 may move a step.
        assert abs(int(solution.stats["num_steps"]) - int(expected.stats["num_steps"])) <= bound(0, 1)
        for name in ("objective", "risk", "dissipation", "dissipated", "outputs"):
            np.testing.assert_allclose(
                getattr(solution, name), getattr(expected, name), rtol=bound(1e-9, 1e-3), atol=bound(1e-12, 1e-5)
            )
        # Of the type of an own flow as well: a user never sees the shape that was shared.
        close = {"rtol": bound(1e-9, 1e-3), "atol": bound(1e-12, 1e-4), "typematch": True}
        assert eqx.tree_equal(solution.models, expected.models, **close)


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=8),
    most_free=st.integers(0, 40),
)
def test_a_shared_shape_is_one_of_the_sizes_and_leaves_few_places_free(sizes, most_free):
    kinds = [index % 2 for index in range(len(sizes))]
    shapes = shared_shapes(sizes, kinds, most_free)
    for (depth, width), shape, kind in zip(sizes, shapes, kinds, strict=True):
        assert shape in [size for size, other in zip(sizes, kinds, strict=True) if other == kind]
        assert depth <= shape[0]
        assert width <= shape[1]
        assert shape == (depth, width) or shape[0] * shape[1] - depth * width <= most_free


def test_only_models_of_one_kind_share_a_program(problem):
    _, (small, large, *_) = problem
    other = wgf.Transformer(averaged(small.encoder.f.token_dim, jax.nn.gelu), small.measure)
    assert _kind(small) == _kind(large)
    assert len({_kind(small), _kind(other), _kind(small.with_tracers(large))}) == 3


def test_no_models_have_no_flows(problem):
    assert wgf.flow_many(problem[0], [], TAUS) == ()


def test_a_flow_that_fails_raises_or_says_so(problem):
    objective, models = problem
    with pytest.raises(RuntimeError, match="step"):
        wgf.flow_many(objective, models, TAUS, max_steps=1)
    found = wgf.flow_many(objective, models, TAUS, max_steps=1, throw=False)
    assert [bool(solution.result == wgf.flows.RESULTS.successful) for solution in found] == [False] * len(models)


def test_what_flow_many_refuses(problem, unchecked):
    _, models = problem
    with pytest.raises(ValueError, match=r"`objective` must be a wgf.Objective; got"):
        wgf.flow_many(lambda model: 0.0, models, TAUS)
