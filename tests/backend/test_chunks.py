"""Means in chunks against the mean of all at once: values, gradients, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, bound, encoders, relative
from hypothesis import given, settings, strategies as st

import wgf
from wgf.encoders import AbstractEncoder, Chunked, plain_mean


class Direction(AbstractEncoder):
    """An encoder of one's own that is singular at zero particles and at zero tokens."""

    token_dim: int

    def sample(self, key, shape):
        return jax.random.normal(key, (*shape, self.token_dim))

    def __call__(self, particle, tokens):
        unit = particle / jnp.linalg.norm(particle)
        return unit[:, None] * (unit @ (tokens / jnp.linalg.norm(tokens)))[None]


def arguments(encoder, width, batch, dim, length, seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    weights = jax.random.uniform(keys[1], (width,), minval=0.5) / width
    tokens, costates = jax.random.normal(keys[2], (2, batch, dim, length))
    return (encoder.sample(keys[0], (width,)), weights, tokens), costates


# Most of the time goes into compilation: machine code need not be optimised to be right.
@functools.partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
def value_and_gradients(mean, args, costates):
    value, pull = jax.vjp(mean, *args)
    return value, pull(costates)


def against_plain(encoder, chunked, args, costates):
    found = value_and_gradients(chunked.mean, args, costates)
    assert relative(found, value_and_gradients(functools.partial(plain_mean, encoder), args, costates)) <= bound(
        1e-12, 1e-5
    )


@pytest.mark.heavy
@settings(max_examples=3, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 12), st.integers(1, 5), st.integers(0, 9))
def test_any_chunk_gives_the_same_mean_and_gradients(width, batch, particles, prompts, seed):
    args, costates = arguments(encoder := Direction(3), width, batch, 3, 4, seed)
    against_plain(encoder, Chunked(encoder, particles=particles, prompts=prompts), args, costates)


@pytest.mark.parametrize("width", [1, 200])
def test_an_encoder_of_ones_own_is_computed_in_chunks_from_the_sizes(width):
    args, costates = arguments(encoder := Matrix(3), width, 70, 3, 40)
    against_plain(encoder, encoder, args, costates)
    in_loops = "while" in jax.jit(encoder.mean).lower(*args).as_text()
    assert in_loops == (width == 200)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["average", "convolution"])
def test_fused_means_can_be_cut_as_well(name):
    args, costates = arguments(encoder := encoders(3)[name], 7, 5, 3, 4)
    against_plain(encoder, Chunked(encoder, particles=3, prompts=2), args, costates)


def test_memory_of_a_gradient_is_that_of_a_chunk():
    encoder = Direction(3)

    def scratch(mean):
        compiled = value_and_gradients.lower(mean, *arguments(encoder, 2048, 8, 3, 100)).compile()
        return compiled.memory_analysis().temp_size_in_bytes / 2**20

    whole = scratch(functools.partial(plain_mean, encoder))
    found = [scratch(chunked.mean) for chunked in (encoder, Chunked(encoder, particles=64, prompts=2))]
    assert whole > 2048 * 8 * 300 * 8 / 2**20, whole
    assert max(found) < 0.15 * whole, (found, whole)


def test_a_flow_in_chunks_is_the_flow(key):
    prompts = wgf.prompts.linear_regression(key, batch=5, examples=3, dim=1)
    objective, ends = wgf.Objective(prompts, 1e-3), []
    for encoder in (Direction(prompts.token_dim), Chunked(Direction(prompts.token_dim), particles=3, prompts=2)):
        measure = wgf.measures.Gaussian(Direction(prompts.token_dim), 0.7).layered(2, 7, key)
        ends.append(wgf.flow(objective, wgf.Transformer(encoder, measure), jnp.array([0.0, 1.0])).outputs[-1])
    np.testing.assert_allclose(*ends, rtol=bound(1e-9, 1e-4))
