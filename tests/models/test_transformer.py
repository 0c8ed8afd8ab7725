"""The finite model: substeps, and its limit."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import bound, relative

import wgf


def test_alternating_halves_converge_to_the_limit_at_first_order(case, key):
    prompts, encoder, measure = case
    shared = jax.tree.map(lambda leaf: leaf[:1], measure.particles)
    limit = wgf.AveragedODE(encoder, measure, steps=64)(prompts.tokens)
    depths = np.array([8, 16, 32, 64])
    errors = []
    for depth in depths:
        layers = jax.tree.map(lambda leaf, depth=depth: jnp.repeat(leaf, depth, axis=0), shared)
        errors.append(relative(wgf.Transformer(encoder, wgf.measures.Layered(layers))(prompts.tokens), limit))
    slope = np.polyfit(np.log(depths), np.log(errors), 1)[0]
    assert -1.15 < slope < -0.85, f"slope {slope}, errors {errors}"


def test_finite_trajectory_is_linear_within_substeps(case, key):
    prompts, encoder, _ = case
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(2, 5, key))
    a, middle, b = model.trajectory(prompts.tokens, jnp.array([0.25, 0.375, 0.5]))
    assert relative(middle, (a + b) / 2) < bound(1e-13, 1e-6)
