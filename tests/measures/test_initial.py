"""Initial laws: what they draw, and the measures that they make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, averaged, bound, programs, vectors

import wgf
from wgf.encoders import Perceptron
from wgf.measures import EncoderLaw, Gaussian, coordinates


@pytest.mark.parametrize(
    "draw",
    [
        lambda law, key: law.layered(3, 5, key),
        lambda law, key: law.spectral(3, 5, key),
        lambda law, key: law.staged(5, key),
        lambda law, key: law.staged(5, key, joint=True),
    ],
)
def test_a_measure_is_drawn_by_one_program(draw, key):
    law = wgf.measures.Gaussian(averaged(3), 0.7)
    with programs() as compiled:
        draw(law, key)
    assert len(compiled) == 1, compiled


NEURON = Perceptron(2, jnp.tanh)


class OnSphere(wgf.encoders.AbstractEncoder):
    """An encoder whose own law is uniform on the unit circle."""

    def sample(self, key, shape):
        angle = jax.random.uniform(key, shape, maxval=2 * np.pi)
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)

    def __call__(self, particle, tokens):
        return particle[:, None] * tokens


def test_coordinates_of_a_gaussian_particle_are_uncorrelated(key):
    points = vectors(Gaussian(averaged(3)).sample(key, 2048))
    correlations = np.corrcoef(points.T) - np.eye(points.shape[1])
    assert np.abs(correlations).max() < 5 / np.sqrt(2048), np.abs(correlations).max()


def test_the_gaussian_law_ignores_the_encoders_own(key):
    lengths = np.linalg.norm(vectors(Gaussian(OnSphere()).sample(key, 64)), axis=1)
    assert lengths.std() > 0.1, lengths.std()


def test_the_encoder_law_is_the_encoders_own_times_the_scale(key):
    law = EncoderLaw(OnSphere(), 3.0)
    np.testing.assert_allclose(np.linalg.norm(law.sample(key, 64), axis=1), 3.0, rtol=bound(1e-14, 2e-6))
    np.testing.assert_array_equal(law.sample(key, 64), 3 * OnSphere().sample(key, (64,)))


def test_the_encoder_law_makes_both_measures(key):
    law = EncoderLaw(Matrix(2))
    assert law.layered(3, 4, key).particles.shape == (3, 4, 2, 2)
    assert law.spectral(3, 4, key).particles.shape == (3, 4, 2, 2)


def test_layers_are_independent(key):
    points = np.asarray(coordinates(Gaussian(NEURON).layered(2, 1024, key).particles)).reshape(2, -1)
    correlation = np.corrcoef(points)[0, 1]
    assert abs(correlation) < 4 / np.sqrt(points.shape[1]), correlation


def test_the_rule_reaches_the_spectral_measure(key):
    measure = Gaussian(NEURON).spectral(3, 2, key, rule="lobatto")
    np.testing.assert_allclose(measure.depths, [0, 0.5, 1], atol=1e-15)


def slope(widths, errors):
    return np.polyfit(np.log(widths), np.log(errors), 1)[0]


@pytest.mark.parametrize("law", [Gaussian, EncoderLaw])
@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_not_positive_is_refused(law, scale):
    with pytest.raises(ValueError, match=f"`scale` must be positive and finite; got {scale}"):
        law(NEURON, scale)


@pytest.mark.parametrize("law", [Gaussian, EncoderLaw])
def test_a_scale_that_is_not_positive_under_jit_raises_in_the_run(law, key):
    with pytest.raises(RuntimeError, match="`scale` must be positive and finite"):
        jax.jit(lambda scale: law(NEURON, scale).sample(key, 2))(-1.0)


def test_a_scale_may_be_differentiated(key):
    slope = jax.grad(lambda scale: Gaussian(NEURON, scale).layered(2, 3, key).second_moment())(0.7)
    np.testing.assert_allclose(slope, 2 / 0.7 * Gaussian(NEURON, 0.7).layered(2, 3, key).second_moment(), rtol=1e-12)


def test_a_depth_below_one_is_refused(key):
    with pytest.raises(ValueError, match="`depth` must be a whole number of at least 1; got 0"):
        Gaussian(NEURON).layered(0, 3, key)


@pytest.mark.parametrize(("rule", "least"), [("gauss", 1), ("lobatto", 2)])
def test_too_few_nodes_are_refused(rule, least, key):
    with pytest.raises(ValueError, match=f"`nodes` must be a whole number of at least {least}; got {least - 1}"):
        Gaussian(NEURON).spectral(least - 1, 3, key, rule=rule)


def test_each_array_of_a_particle_may_have_a_scale_of_its_own(key):
    encoder = wgf.encoders.Average(wgf.encoders.SoftmaxAttention(3, key_dim=2), wgf.encoders.Perceptron(3))
    scale = wgf.encoders.Pair(f=wgf.encoders.Head(value=2.0, key=0.5, query=0.5), h=3.0)
    one, each = (wgf.measures.Gaussian(encoder, s).layered(2, 4, key).particles for s in (1.0, scale))
    np.testing.assert_allclose(each.f.value, 2 * one.f.value, rtol=1e-6)
    np.testing.assert_allclose(each.f.query, one.f.query / 2, rtol=1e-6)
    for mine, unit in zip(jax.tree.leaves(each.h), jax.tree.leaves(one.h), strict=True):
        np.testing.assert_allclose(mine, 3 * unit, rtol=1e-6)
    own = wgf.measures.EncoderLaw(encoder, scale).layered(2, 4, key).particles
    plain = wgf.measures.EncoderLaw(encoder).layered(2, 4, key).particles
    np.testing.assert_allclose(own.f.key, plain.f.key / 2, rtol=1e-6)


def test_scales_in_another_structure_are_refused():
    encoder = wgf.encoders.Perceptron(3)
    with pytest.raises(ValueError, match="`scale` must be one number, or one for each array of a particle"):
        wgf.measures.Gaussian(encoder, {"value": 1.0, "key": 2.0})
    with pytest.raises(ValueError, match="`scale` must be positive and finite"):
        wgf.measures.Gaussian(encoder, jax.tree.map(lambda _: -1.0, encoder.sample(jax.random.key(0), ())))


def test_a_law_on_a_grid_has_one_scale():
    encoder = wgf.encoders.Perceptron(1, use_bias=False)
    law = wgf.measures.Gaussian(encoder, jax.tree.map(lambda _: 1.0, encoder.sample(jax.random.key(0), ())))
    with pytest.raises(ValueError, match="`scale` must be one number for a law on a grid"):
        law.eulerian(2, (4, 4), -3.0, 3.0)
