"""Fixtures that the tests of this folder share."""

import jax
import pytest

N, M, DIM = 14, 11, 3


@pytest.fixture(scope="module")
def problem():
    """Two clouds of other sizes, spreads and means, with weights."""
    keys = jax.random.split(jax.random.key(0), 4)
    x, y = jax.random.normal(keys[0], (N, DIM)), 0.5 + 1.4 * jax.random.normal(keys[1], (M, DIM))
    a, b = (jax.random.uniform(key, (n,)) + 0.1 for key, n in zip(keys[2:], (N, M), strict=True))
    return x, y, a / a.sum(), b / b.sum()
