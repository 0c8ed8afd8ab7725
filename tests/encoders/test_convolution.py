"""The convolution against SciPy's filter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound
from scipy.ndimage import convolve1d

import wgf
from wgf.encoders import Convolution, Neuron, Perceptron

DIM, LENGTH = 4, 6


@pytest.fixture
def tokens():
    return jax.random.normal(jax.random.key(1), (DIM, LENGTH))


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


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Convolution(0), "`token_dim` must be a whole number of at least 1; got 0"),
        (lambda: Convolution(2, reach=-1), "`reach` must be a whole number of at least 0; got -1"),
    ],
)
def test_bad_arguments_are_named(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Convolution(2, activation="relu"), "`activation` must be a function of an array.*; got 'relu'"),
    ],
)
def test_what_is_no_function_is_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()
