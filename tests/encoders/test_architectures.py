"""Kernel attention, convolution and layer normalisation against NumPy written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound
from scipy.ndimage import convolve1d
from scipy.spatial.distance import cdist
from scipy.special import expit

import wgf
from wgf.encoders import Convolution, KernelAttention, LayerNorm, Neuron, Perceptron, SoftmaxAttention

DIM, LENGTH = 4, 6
KERNELS = {
    wgf.encoders.linear_kernel: lambda k, q: k.T @ q / np.sqrt(3),
    wgf.encoders.relu_kernel: lambda k, q: np.maximum(k.T @ q / np.sqrt(3), 0),
    wgf.encoders.sigmoid_kernel: lambda k, q: expit(k.T @ q / np.sqrt(3)),
    wgf.encoders.gaussian_kernel: lambda k, q: np.exp(-cdist(k.T, q.T, "sqeuclidean") / (2 * np.sqrt(3))),
}


@pytest.fixture
def tokens():
    return jax.random.normal(jax.random.key(1), (DIM, LENGTH))


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_kernel_attention_is_its_formula(kernel, tokens):
    encoder = KernelAttention(DIM, key_dim=3, kernel=kernel)
    head = encoder.sample(jax.random.key(2), ())
    v, k, q, t = (np.asarray(a) for a in (*head, tokens))
    weights = KERNELS[kernel](k @ t, q @ t)
    expected = sum(np.outer(v @ t[:, j], weights[j]) for j in range(LENGTH)) / LENGTH
    np.testing.assert_allclose(encoder(head, tokens), expected, rtol=bound(1e-12, 1e-5), atol=bound(1e-14, 1e-6))


def test_a_convolution_is_a_filter_along_tokens(tokens):
    encoder = Convolution(DIM, reach=2, activation=jnp.tanh)
    w_in, w_out, bias = encoder.sample(jax.random.key(3), ())
    rows = zip(np.asarray(tokens), np.asarray(w_in), strict=True)
    filtered = sum(convolve1d(row, weights[::-1], mode="constant") for row, weights in rows)
    expected = np.outer(w_out, np.tanh(filtered + float(bias)))
    np.testing.assert_allclose(_apply(encoder, w_in, w_out, bias, tokens), expected, rtol=bound(1e-12, 1e-5))


def _apply(encoder, w_in, w_out, bias, tokens):
    return encoder(wgf.encoders.ConvolutionalNeuron(w_in, w_out, bias), tokens)


def test_a_convolution_of_no_reach_is_the_perceptron(tokens):
    encoder = Convolution(DIM, reach=0, activation=jax.nn.gelu)
    w_in, w_out, bias = encoder.sample(jax.random.key(4), ())
    plain = Perceptron(DIM, jax.nn.gelu)(Neuron(w_in[:, 0], w_out, bias), tokens)
    np.testing.assert_allclose(_apply(encoder, w_in, w_out, bias, tokens), plain, rtol=bound(1e-12, 1e-5))


def test_layer_norm_centres_and_scales_each_token(tokens):
    encoder = LayerNorm(SoftmaxAttention(DIM, key_dim=2), epsilon=1e-3)
    head = encoder.sample(jax.random.key(5), ())
    t = np.asarray(tokens)
    normalised = (t - t.mean(axis=0)) / np.sqrt(t.var(axis=0) + 1e-3)
    np.testing.assert_allclose(
        encoder(head, tokens), encoder.encoder(head, jnp.asarray(normalised)), rtol=bound(1e-10, 1e-4)
    )
    # What is normalised forgets the scale and the mean of each token, up to epsilon.
    np.testing.assert_allclose(encoder(head, 1e4 * tokens + 7), encoder(head, 1e6 * tokens), rtol=1e-5)


def test_equal_entries_stay_finite_with_finite_gradients():
    encoder = LayerNorm(Perceptron(DIM))
    neuron = encoder.sample(jax.random.key(6), ())
    gradient = jax.grad(lambda tokens: encoder(neuron, tokens).sum())(jnp.ones((DIM, LENGTH)))
    assert jnp.all(jnp.isfinite(gradient))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: KernelAttention(0, key_dim=1), "`token_dim` must be a whole number of at least 1; got 0"),
        (lambda: KernelAttention(2, key_dim=0), "`key_dim` must be a whole number of at least 1; got 0"),
        (lambda: Convolution(0), "`token_dim` must be a whole number of at least 1; got 0"),
        (lambda: Convolution(2, reach=-1), "`reach` must be a whole number of at least 0; got -1"),
        (lambda: LayerNorm(Perceptron(2), epsilon=0.0), r"`epsilon` must be positive; got 0\.0"),
    ],
)
def test_bad_arguments_are_named(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: KernelAttention(2, key_dim=1, kernel="relu"), "`kernel` must be a function, e.g. .*; got 'relu'"),
        (lambda: Convolution(2, activation="relu"), "`activation` must be a function of an array.*; got 'relu'"),
    ],
)
def test_what_is_no_function_is_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()
