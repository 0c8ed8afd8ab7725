"""What every encoder keeps: its mean is the plain mean, with its derivatives, symmetries and reflection."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, encoder_problem as problem, encoders, in_float64, relative

from wgf.encoders import Perceptron, SoftmaxAttention, plain_mean

DIM, LENGTH, WIDTH, BATCH = 4, 5, 6, 3
ENCODERS = encoders(DIM)
ODD = {name: encoder for name, encoder in ENCODERS.items() if encoder.is_odd}
each = pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS.keys())
each_odd = pytest.mark.parametrize("encoder", ODD.values(), ids=ODD.keys())
PRECISIONS = [(jnp.float32, 1e-5), *([(jnp.float64, 1e-12)] if in_float64() else [])]


def value_and_gradients(mean, particles, weights, tokens):
    """A scalar of the mean that sees every entry, with its gradients in all three arguments."""
    probe = jnp.cos(jnp.arange(tokens.size, dtype=tokens.dtype)).reshape(tokens.shape)

    def scalar(particles, weights, tokens):
        out = mean(particles, weights, tokens)
        return jnp.sum(probe * out + out**2 / 2), out

    (_, out), gradients = jax.jit(jax.value_and_grad(scalar, argnums=(0, 1, 2), has_aux=True))(
        particles, weights, tokens
    )
    return {"value": out, **dict(zip(("particles", "weights", "tokens"), gradients, strict=True))}


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@each
def test_the_mean_and_its_gradients_are_those_of_the_plain_mean(encoder, dtype, tolerance):
    args = problem(encoder, dtype)
    fast = value_and_gradients(encoder.mean, *args)
    plain = value_and_gradients(lambda *args: plain_mean(encoder, *args), *args)
    errors = {name: relative(fast[name], plain[name]) for name in plain}
    assert max(errors.values()) < tolerance, errors
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves((fast, plain))), errors


@each
def test_the_plain_mean_is_a_sum_over_single_particles(encoder):
    particles, weights, tokens = problem(encoder)
    expected = np.zeros(tokens.shape)
    for b in range(BATCH):
        for j in range(WIDTH):
            expected[b] += weights[j] * np.asarray(
                encoder(jax.tree.map(lambda leaf, j=j: leaf[j], particles), tokens[b])
            )
    np.testing.assert_allclose(plain_mean(encoder, particles, weights, tokens), expected, atol=bound(1e-12, 1e-5))


@each
def test_the_mean_is_linear_in_the_weights_and_right_without_a_sum_of_one(encoder):
    particles, weights, tokens = problem(encoder)
    double = encoder.mean(particles, -2 * weights, tokens)
    np.testing.assert_allclose(double, -2 * encoder.mean(particles, weights, tokens), atol=bound(1e-13, 1e-5))


@each
def test_a_particle_of_weight_zero_makes_no_field_though_its_weight_has_a_gradient(encoder):
    particles, weights, tokens = problem(encoder)
    far = jax.tree.map(lambda leaf: leaf.at[2].multiply(50), particles)
    np.testing.assert_allclose(
        encoder.mean(far, weights, tokens), encoder.mean(particles, weights, tokens), atol=bound(1e-13, 1e-5)
    )
    slope = jax.grad(lambda w: jnp.sum(encoder.mean(particles, w, tokens)))(weights)[2]
    alone = jnp.sum(plain_mean(encoder, particles, jnp.zeros(WIDTH).at[2].set(1), tokens))
    np.testing.assert_allclose(slope, alone, atol=bound(1e-12, 1e-5))


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "convolution"])
def test_permuting_tokens_permutes_the_output(name):
    encoder = ENCODERS[name]
    particles, weights, tokens = problem(encoder)
    order = np.array([3, 0, 4, 1, 2])
    permuted = encoder.mean(particles, weights, tokens[:, :, order])
    np.testing.assert_allclose(permuted, encoder.mean(particles, weights, tokens)[:, :, order], atol=bound(1e-13, 1e-5))


@each
def test_permuting_particles_with_their_weights_changes_nothing(encoder):
    particles, weights, tokens = problem(encoder)
    order = np.array([5, 1, 0, 3, 2, 4])
    permuted = encoder.mean(jax.tree.map(lambda leaf: leaf[order], particles), weights[order], tokens)
    np.testing.assert_allclose(permuted, encoder.mean(particles, weights, tokens), atol=bound(1e-13, 1e-5))


@each
def test_a_prompt_does_not_see_the_other_prompts(encoder):
    particles, weights, tokens = problem(encoder)
    np.testing.assert_allclose(
        encoder.mean(particles, weights, tokens[1:2])[0],
        encoder.mean(particles, weights, tokens)[1],
        atol=bound(1e-13, 1e-5),
    )


@each_odd
def test_the_reflection_flips_the_sign_of_the_output(encoder):
    particles, weights, tokens = problem(encoder)
    reflected = encoder.mean(encoder.reflect(particles), weights, tokens)
    np.testing.assert_allclose(reflected, -encoder.mean(particles, weights, tokens), atol=bound(1e-14, 1e-6))


@each_odd
def test_the_reflection_undoes_itself_and_keeps_norms(encoder):
    particles, _, _ = problem(encoder)
    once = encoder.reflect(particles)
    for leaf, image, back in zip(*map(jax.tree.leaves, (particles, once, encoder.reflect(once))), strict=True):
        np.testing.assert_array_equal(leaf, back)
        np.testing.assert_array_equal(jnp.abs(leaf), jnp.abs(image))


@each
def test_samples_have_the_leading_axes_asked_for(encoder, key):
    one, many = (jax.tree.leaves(encoder.sample(key, shape)) for shape in ((), (2, 3)))
    assert [leaf.shape for leaf in many] == [(2, 3, *leaf.shape) for leaf in one]


@each_odd
def test_samples_are_standard_normal(encoder, key):
    leaves = jax.tree.leaves(encoder.sample(key, (4000,)))
    draws = np.concatenate([np.asarray(leaf).reshape(4000, -1) for leaf in leaves], axis=1)
    correlations = np.corrcoef(draws.T) - np.eye(draws.shape[1])
    assert abs(draws.mean()) < 4 / np.sqrt(draws.size), draws.mean()
    assert abs(draws.var() - 1) < 4 * np.sqrt(2 / draws.size), draws.var()
    assert np.abs(correlations).max() < 5 / np.sqrt(4000), np.abs(correlations).max()


@pytest.mark.parametrize("bad", [0, -1, True])
def test_a_token_dimension_below_one_is_refused(bad):
    match = f"`token_dim` must be a whole number of at least 1; got {bad}"
    with pytest.raises(ValueError, match=match):
        SoftmaxAttention(bad, key_dim=1)
    with pytest.raises(ValueError, match=match):
        Perceptron(bad, jnp.tanh)
