import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, bound, encoders, in_float64, relative
from hypothesis import given, settings, strategies as st

from wgf.encoders import (
    Average,
    Head,
    Neuron,
    Pair,
    Perceptron,
    SoftmaxAttention,
    Zero,
    plain_mean,
)

DIM, LENGTH, WIDTH, BATCH = 4, 5, 6, 3
ENCODERS = encoders(DIM)
ODD = {name: encoder for name, encoder in ENCODERS.items() if encoder.is_odd}
each = pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS.keys())
each_odd = pytest.mark.parametrize("encoder", ODD.values(), ids=ODD.keys())


PRECISIONS = [(jnp.float32, 1e-5), *([(jnp.float64, 1e-12)] if in_float64() else [])]


def problem(encoder, dtype=float):
    """Particles, weights (one of them zero) and tokens."""
    particle_key, weight_key, token_key = jax.random.split(jax.random.key(5), 3)
    weights = jax.random.dirichlet(weight_key, jnp.ones(WIDTH)).at[2].set(0)
    args = encoder.sample(particle_key, (WIDTH,)), weights, jax.random.normal(token_key, (BATCH, DIM, LENGTH))
    return jax.tree.map(lambda leaf: leaf.astype(dtype), args)


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


def attention_by_hand(head, tokens):
    """Loop over queries: a softmax of the scores over the keys, then the average of the values."""
    value, key, query = (np.asarray(part) for part in head)
    out = np.zeros_like(tokens)
    for q in range(tokens.shape[1]):
        scores = np.array([(key @ tokens[:, k]) @ (query @ tokens[:, q]) for k in range(tokens.shape[1])])
        powers = np.exp(scores / np.sqrt(key.shape[0]))
        out[:, q] = sum(p * (value @ tokens[:, k]) for k, p in enumerate(powers / powers.sum()))
    return out


@settings(deadline=None, max_examples=5)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(2, 5), st.integers(0, 10**6))
def test_attention_is_that_of_numpy(dim, key_dim, length, seed):
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(dim, length))
    head = Head(*(jnp.asarray(rng.normal(size=(rows, dim))) for rows in (dim, key_dim, key_dim)))
    out = SoftmaxAttention(dim, key_dim=key_dim)(head, jnp.asarray(tokens))
    np.testing.assert_allclose(out, attention_by_hand(head, tokens), atol=bound(1e-12, 1e-5))


def test_attention_weights_of_a_query_sum_to_one(key):
    particles, _, tokens = problem(ENCODERS["attention"])
    head = jax.tree.map(lambda leaf: leaf[0], particles)._replace(value=jnp.eye(DIM))
    # Values that are constant over the keys come out as they are, whatever the scores.
    same = tokens[0].at[0].set(1.7)
    np.testing.assert_allclose(ENCODERS["attention"](head, same)[0], 1.7, rtol=bound(1e-14, 1e-6))


def test_attention_on_equal_tokens_is_the_value_matrix_alone():
    particles, _, _ = problem(ENCODERS["attention"])
    head = jax.tree.map(lambda leaf: leaf[0], particles)
    tokens = jnp.broadcast_to(jnp.arange(1.0, DIM + 1)[:, None], (DIM, LENGTH))
    np.testing.assert_allclose(ENCODERS["attention"](head, tokens), head.value @ tokens, atol=bound(1e-13, 1e-5))


def test_attention_without_scores_averages_the_tokens():
    head = Head(jnp.eye(DIM), jnp.zeros((2, DIM)), jnp.ones((2, DIM)))
    tokens = problem(ENCODERS["attention"])[2][0]
    expected = np.broadcast_to(tokens.mean(axis=1, keepdims=True), tokens.shape)
    np.testing.assert_allclose(ENCODERS["attention"](head, tokens), expected, atol=bound(1e-14, 1e-6))


def test_sharp_attention_copies_the_best_key():
    tokens = jnp.array([[1.0, 2.0, 5.0], [1.0, 1.0, 1.0]])
    head = Head(jnp.eye(2), jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 200.0]]))
    np.testing.assert_allclose(SoftmaxAttention(2, key_dim=1)(head, tokens), [[5.0] * 3, [1.0] * 3], atol=1e-12)


def test_large_scores_do_not_overflow():
    particles, weights, tokens = problem(ENCODERS["attention"])
    out = ENCODERS["attention"].mean(particles, weights, 1e3 * tokens)
    assert jnp.all(jnp.isfinite(out))


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(("jax_name", "numpy_name"), [(jnp.tanh, np.tanh), (jnp.sin, np.sin)], ids=["tanh", "sin"])
def test_a_perceptron_is_that_of_numpy(use_bias, jax_name, numpy_name):
    encoder = Perceptron(DIM, jax_name, use_bias=use_bias)
    particles, _, tokens = problem(encoder)
    neuron, prompt = jax.tree.map(lambda leaf: leaf[1], particles), np.asarray(tokens[0])
    expected = np.zeros_like(prompt)
    for n in range(LENGTH):
        drive = np.dot(neuron.w_in, prompt[:, n]) + (float(neuron.bias) if use_bias else 0.0)
        expected[:, n] = np.asarray(neuron.w_out) * numpy_name(drive)
    np.testing.assert_allclose(encoder(neuron, tokens[0]), expected, atol=bound(1e-14, 1e-6))


def test_a_perceptron_without_bias_has_none(key):
    assert Perceptron(DIM, jnp.tanh, use_bias=False).sample(key, (2,)).bias is None


def test_a_perceptron_has_tanh_by_default(key):
    neuron = Neuron(jnp.ones(1), jnp.ones(1), jnp.zeros(()))
    np.testing.assert_allclose(
        Perceptron(1)(neuron, jnp.array([[0.5, 2.0]])), np.tanh([[0.5, 2.0]]), rtol=bound(1e-14, 1e-6)
    )


def test_encoders_are_homogeneous_in_their_outer_weights():
    encoder = averaged(DIM)
    particles, weights, tokens = problem(encoder)
    scaled = Pair(particles.f._replace(value=3 * particles.f.value), particles.h._replace(w_out=3 * particles.h.w_out))
    np.testing.assert_allclose(
        encoder.mean(scaled, weights, tokens), 3 * encoder.mean(particles, weights, tokens), atol=bound(1e-12, 1e-5)
    )


def test_the_average_is_half_the_sum_of_its_halves():
    encoder = averaged(DIM)
    particles, weights, tokens = problem(encoder)
    halves = encoder.f.mean(particles.f, weights, tokens) + encoder.h.mean(particles.h, weights, tokens)
    np.testing.assert_allclose(encoder.mean(particles, weights, tokens), halves / 2, rtol=bound(1e-14, 1e-6))


def test_the_halves_of_an_average_are_drawn_independently(key):
    twin = Average(Perceptron(DIM, jnp.tanh), Perceptron(DIM, jnp.tanh)).sample(key, (500,))
    correlation = np.corrcoef(twin.f.w_in[:, 0], twin.h.w_in[:, 0])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(500), correlation


def test_an_average_of_averages_nests():
    inner = averaged(DIM)
    encoder = Average(inner, Zero())
    particles, weights, tokens = problem(encoder)
    np.testing.assert_allclose(
        encoder.mean(particles, weights, tokens), inner.mean(particles.f, weights, tokens) / 2, rtol=bound(1e-14, 1e-6)
    )


def test_zero_returns_zeros(key):
    tokens = jnp.ones((BATCH, DIM, LENGTH))
    assert Zero().sample(key, (3,)) == ()
    assert Zero().reflect(()) == ()
    np.testing.assert_array_equal(Zero()((), tokens[0]), np.zeros((DIM, LENGTH)))
    np.testing.assert_array_equal(Zero().mean((), jnp.ones(3), tokens), np.zeros(tokens.shape))


def test_an_average_with_a_half_without_reflection_refuses_to_reflect(key):
    encoder = Average(Perceptron(DIM, jnp.tanh), ENCODERS["user's own"])
    assert not encoder.is_odd
    with pytest.raises(ValueError, match=r"`encoder` must have a reflection; got Matrix"):
        encoder.reflect(encoder.sample(key, ()))


@pytest.mark.parametrize("bad", [0, -1, True])
def test_a_token_dimension_below_one_is_refused(bad):
    match = f"`token_dim` must be a whole number of at least 1; got {bad}"
    with pytest.raises(ValueError, match=match):
        SoftmaxAttention(bad, key_dim=1)
    with pytest.raises(ValueError, match=match):
        Perceptron(bad, jnp.tanh)


def test_a_key_dimension_below_one_is_refused():
    with pytest.raises(ValueError, match="`key_dim` must be a whole number of at least 1; got 0"):
        SoftmaxAttention(DIM, key_dim=0)


def test_an_activation_that_is_no_function_is_refused(unchecked):
    with pytest.raises(ValueError, match=r"`activation` must be a function of an array, e.g. jnp.tanh; got 'tanh'"):
        Perceptron(DIM, "tanh")
