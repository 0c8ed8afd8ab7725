"""Calls outside `jit`, as in a notebook: nothing is compiled after the first call with the same shapes."""

import jax
import jax.numpy as jnp
import pytest
from helpers import programs

from wgf.measures import Layered
from wgf.transport import (
    conditional_divergence,
    coupling_distance,
    divergence_curve,
    epsilon_from_scale,
    sinkhorn_divergence,
)


def clouds(seed, *shape):
    return jax.random.normal(jax.random.key(seed), (*shape, 6, 2), jnp.float32)


def single(seed):
    return sinkhorn_divergence(clouds(seed), clouds(seed + 1), epsilon=0.5 + seed, threshold=1e-3 / (1 + seed))


CALLS = {
    "divergence": single,
    "with weights": lambda seed: sinkhorn_divergence(
        clouds(seed), clouds(seed + 1), epsilon=0.5, x_weights=jnp.full(6, 1 / 6), max_iterations=1000 + seed
    ),
    "from a start": lambda seed: sinkhorn_divergence(
        clouds(seed), clouds(seed + 1), epsilon=0.5, initial=single(seed).potentials
    ),
    "curve": lambda seed: divergence_curve(clouds(seed, 3), clouds(seed), epsilon=0.5 + seed),
    "depths": lambda seed: conditional_divergence(
        clouds(seed, 3), clouds(seed + 1, 3), jnp.full(3, 1 / 3), epsilon=0.5 + seed
    ),
    "scale": lambda seed: epsilon_from_scale(clouds(seed), 0.05 + seed / 10),
    "coupling": lambda seed: coupling_distance(Layered(clouds(seed, 3)), Layered(clouds(seed + 1, 3))),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_compiles_nothing(name):
    jax.block_until_ready(CALLS[name](0))
    with programs() as compiled:
        jax.block_until_ready(CALLS[name](1))
    assert compiled == [], compiled


def test_a_divergence_is_one_program():
    """The checks before it are made by the host."""
    x, y, a = clouds(0)[:5], clouds(1)[:4], jnp.full(5, 0.2, jnp.float32)
    with programs() as compiled:
        sinkhorn_divergence(x, y, epsilon=0.5, x_weights=a)
    assert len(compiled) == 1, compiled
