"""Tracers in strips: cut and joined again, at their depths, in a width that wastes little."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, bound, regression, relative

import wgf
from wgf.flows._tracers import joined, strip_depths, strip_width, strips

SHAPES = [(4, 16), (3, 40), (1, 5), (2, 64)]


def _measures(key, shapes=SHAPES):
    encoder = averaged(3)
    law = wgf.measures.Gaussian(encoder, 1.0)
    return [law.layered(*shape, k) for shape, k in zip(shapes, jax.random.split(key, len(shapes)), strict=True)]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_is_cut_to_strips_is_joined_again(key, count):
    measures = _measures(key)[:count]
    again = joined(strips([measure.particles for measure in measures]), measures)
    for particles, measure in zip(again, measures, strict=True):
        assert jax.tree.all(jax.tree.map(np.array_equal, particles, measure.particles))


def test_every_particle_of_a_strip_is_of_its_depth(key):
    """Particles that know their depth: the measure's particles are replaced by their own depths."""
    measures = [
        measure.with_particles(
            jax.tree.map(
                lambda leaf, m=measure: jnp.zeros_like(leaf) + m.depths.reshape(-1, *(1,) * (leaf.ndim - 1)),
                measure.particles,
            )
        )
        for measure in _measures(key)
    ]
    cut = strips([measure.particles for measure in measures])
    np.testing.assert_array_equal(cut, jnp.broadcast_to(strip_depths(measures)[:, None, None], cut.shape))


@pytest.mark.parametrize(
    ("shapes", "width"),
    [
        # 92 strips of 64 for 5,440 particles, where one width for all layers would be 60 of 128.
        ([(4, 16), (8, 32), (16, 64), (32, 128)], 64),
        # Many narrow layers are not filled up to the width of a few wide ones.
        ([(128, 8), (2, 512)], 8),
        ([(3, 7)], 7),
    ],
)
def test_strips_waste_little_and_are_few(shapes, width):
    assert strip_width(shapes) == width


@pytest.mark.heavy
def test_tracers_move_down_the_first_variation_layer_by_layer(key):
    """Strips of 16, of which a layer of 40 fills two and a half, against the gradients of whole layers."""
    prompts = regression(key, batch=3, dim=1)
    encoder = averaged(prompts.token_dim)
    law = wgf.measures.Gaussian(encoder, 0.7)
    finite = [wgf.Transformer(encoder, law.layered(*shape, key)) for shape in ((4, 16), (1, 40))]
    limit = wgf.AveragedODE(encoder, law.spectral(nodes=2, width=8, key=key))
    objective = wgf.Objective(prompts, 1e-2)
    assert strip_width([(4, 16), (1, 40)]) == 16
    first_variation = objective.first_variation(limit)
    velocities = wgf.flows.tracer_velocity(objective, limit.with_tracers(*finite))
    for velocity, model in zip(velocities, finite, strict=True):
        assert jax.tree.structure(velocity) == jax.tree.structure(model.measure.particles)
        for layer, depth in enumerate(model.measure.depths):
            at_layer = jax.tree.map(lambda leaf, layer=layer: leaf[layer], model.measure.particles)
            slope = first_variation.gradient(at_layer, depth)
            for ours, theirs in zip(jax.tree.leaves(velocity), jax.tree.leaves(slope), strict=True):
                assert relative(ours[layer], -theirs) < bound(1e-12, 1e-5)
    assert wgf.flows.tracer_velocity(objective, limit) == ()
