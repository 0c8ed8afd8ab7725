"""The Gibbs kernel: squared distances, blocks of rows."""

import equinox as eqx
import jax
import numpy as np
import pytest

from wgf.transport._gibbs import square_distances


@pytest.mark.parametrize("dim", [1, 7, 8, 19])
def test_square_distances_are_exact_in_all_digits(dim):
    x, y = (1e4 + np.asarray(jax.random.normal(jax.random.key(i), (n, dim)), np.float32) for i, n in enumerate((9, 5)))
    exact = np.sum((x[:, None].astype(float) - y.astype(float)) ** 2, axis=-1)
    np.testing.assert_allclose(eqx.filter_jit(square_distances)(x, y), exact, rtol=2e-6)
