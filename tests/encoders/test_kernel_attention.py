"""Kernel attention against its formula in NumPy."""

import jax
import numpy as np
import pytest
from helpers import bound
from scipy.spatial.distance import cdist
from scipy.special import expit

import wgf
from wgf.encoders import KernelAttention

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


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: KernelAttention(0, key_dim=1), "`token_dim` must be a whole number of at least 1; got 0"),
        (lambda: KernelAttention(2, key_dim=0), "`key_dim` must be a whole number of at least 1; got 0"),
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
    ],
)
def test_what_is_no_function_is_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()
