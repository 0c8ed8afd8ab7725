"""Depth: one rule for every function that takes one, and dense output that has numbers at all of [0, 1]."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, bound, regression

import wgf

MODELS = ("finite", "limit", "staged")
LAWS = ("layered law", "spectral law", "staged law", "law on a grid")
NAMES = [*LAWS, "layer", "basis", "field"] + [
    f"{model} {what}" for model in MODELS for what in ("tokens", "costates", "pairing", "first variation", "gradient")
]
# Beside 0, what rounding may make of it; the same of 1.
ENDS = {0.0: (-1e-9, -3e-8, np.nextafter(0, -1)), 1.0: (1 + 1e-7, np.nextafter(1, 2))}
OUTSIDE = r"must lie in \[0, 1\], from the prompts to the output; got "


@pytest.fixture(scope="module")
def problem():
    key = jax.random.key(7)
    prompts = regression(key, batch=2)
    encoder = Matrix(prompts.token_dim)
    law = wgf.measures.Gaussian(encoder, 0.7)
    models = {
        "finite": wgf.Transformer(encoder, law.layered(3, 2, key)),
        "limit": wgf.AveragedODE(encoder, law.spectral(3, 2, key)),
        "staged": wgf.AveragedODE(encoder, law.staged(2, key)),
    }
    return wgf.Objective(prompts, 1e-2), models


@pytest.fixture(scope="module")
def takers(problem):
    """Every function of one depth in the library, by name."""
    objective, models = problem
    layered, spectral, staged = (model.measure for model in models.values())
    line = wgf.measures.Gaussian(Matrix(1), 0.5).eulerian(2, (4,), -2.0, 2.0)
    found = dict(zip(LAWS, (layered.at, spectral.at, staged.at, line.at), strict=True))
    found |= {"layer": layered.layer, "basis": spectral.basis}
    found["field"] = functools.partial(models["limit"].field, tokens=objective.prompts.tokens)
    particle, pair = jnp.eye(objective.prompts.token_dim), {"prompt_weights": objective.prompts.weights}
    for name, model in models.items():
        variation = objective.first_variation(model)
        found |= {
            f"{name} tokens": variation.adjoint.tokens,
            f"{name} costates": variation.adjoint.costates,
            f"{name} pairing": functools.partial(variation.adjoint.pairing, particle[None], jnp.ones(1), **pair),
            f"{name} first variation": functools.partial(variation, particle),
            f"{name} gradient": functools.partial(variation.gradient, particle[None]),
        }
    return found


@pytest.mark.parametrize("name", NAMES)
def test_rounding_beyond_the_ends_is_clipped_and_more_refused(takers, name):
    taker = takers[name]
    for end, nearby in ENDS.items():
        expected = taker(end)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))
        for depth in nearby:
            jax.tree.map(np.testing.assert_array_equal, taker(depth), expected)
    for outside in (1.5, -1e-3, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"`depth` {OUTSIDE}"):
            taker(outside)


@pytest.mark.parametrize("name", MODELS)
def test_trajectories_have_the_rule(problem, name):
    objective, models = problem
    path = functools.partial(models[name].trajectory, objective.prompts.tokens)
    depths = np.array([depth for end, nearby in ENDS.items() for depth in (end, *nearby)])
    found = path(depths)
    assert jnp.isfinite(found).all()
    np.testing.assert_array_equal(found, found[np.array([0, 0, 0, 0, 4, 4, 4])])
    for outside in (1.5, -1e-3, np.nan):
        with pytest.raises(ValueError, match=f"`depths` {OUTSIDE}"):
            path(np.array([0.5, outside]))
    with pytest.raises(ValueError, match=f"`depths` {OUTSIDE}"):
        jax.jit(lambda: path(np.array([1.5])))()
    # Known at run time alone, it is clipped.
    traced = jax.jit(path)(jnp.array([-0.5, 0.0, 1.5, 1.0]))
    np.testing.assert_array_equal(traced[::2], traced[1::2])


@pytest.mark.parametrize("name", LAWS)
def test_a_law_at_a_traced_depth_is_clipped(takers, name):
    traced = jax.jit(jax.vmap(takers[name]))(jnp.array([-0.5, 0.0, 1.5, 1.0]))
    for leaf in jax.tree.leaves(traced):
        np.testing.assert_array_equal(leaf[::2], leaf[1::2])


@pytest.mark.parametrize("name", ["finite", "limit"])
def test_trajectories_have_one_sided_slopes_at_the_ends(problem, name):
    """Clipping halves no derivative."""
    objective, models = problem

    def place(depth):
        return models[name].trajectory(objective.prompts.tokens, depth[None])[0, 0, 0, 0]

    slopes = jax.jit(jax.vmap(jax.grad(place)))(jnp.array([0.0, 1e-7, 1.0 - 1e-7, 1.0]))
    np.testing.assert_allclose(slopes[::3], slopes[1:3], rtol=bound(1e-5, 1e-4))


def test_certificates_have_the_rule(key):
    prompts = regression(key, batch=2)
    encoder = Matrix(prompts.token_dim)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(2, 2, key))
    certify = functools.partial(wgf.analysis.certificate, wgf.Objective(prompts, 1.0), model, key=key, starts=2)
    with pytest.raises(ValueError, match=f"`depths` {OUTSIDE}"):
        certify(depths=[0.5, 1.5])
    found = certify(depths=[-1e-9, 1 + 1e-9], max_steps=2)
    np.testing.assert_array_equal(found.depths, [0.0, 1.0])
    assert jnp.isfinite(found.gap).all()
