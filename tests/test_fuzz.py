"""Random problems: encoders, measures, models, types and sizes that nobody chose.

`WGF_FUZZ=100 pytest -m heavy tests/test_fuzz.py` tries 100 examples in each test.
"""

import os
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FLOATS, relative
from hypothesis import HealthCheck, given, settings, strategies as st

import wgf
from wgf.encoders import (
    Average,
    Banded,
    Causal,
    Chunked,
    Convolution,
    Intersection,
    KernelAttention,
    LayerNorm,
    Perceptron,
    SoftmaxAttention,
    Zero,
    gaussian_kernel,
    plain_mean,
    relu_kernel,
    sigmoid_kernel,
)

EXAMPLES = int(os.environ.get("WGF_FUZZ", "3"))
random_problems = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
pytestmark = [
    pytest.mark.heavy,
    # Hundreds of sizes fill the memory maps of a process, which says so when it drops their programs.
    pytest.mark.filterwarnings("ignore:This process held"),
]
counts = st.integers(1, 5)


@dataclass
class Case:
    """An encoder with a model of it, on prompts."""

    encoder: wgf.encoders.AbstractEncoder
    objective: wgf.Objective
    model: wgf.models.AbstractModel
    dtype: type

    @property
    def eps(self):
        return float(jnp.finfo(self.dtype).eps)


def simple(dim):
    """The encoders without inner ones."""
    masks = st.sampled_from([None, Causal(), Banded(0), Banded(1), Intersection(Causal(), Banded(2))])
    activations = st.sampled_from([jnp.tanh, jax.nn.relu, jax.nn.gelu, jnp.sin, jax.nn.softplus])
    kernels = st.sampled_from([gaussian_kernel, relu_kernel, sigmoid_kernel])
    return st.one_of(
        st.builds(lambda k, mask: SoftmaxAttention(dim, key_dim=k, mask=mask), counts, masks),
        st.builds(lambda act, bias: Perceptron(dim, act, use_bias=bias), activations, st.booleans()),
        st.builds(lambda k, kernel: KernelAttention(dim, key_dim=k, kernel=kernel), counts, kernels),
        st.builds(lambda reach: Convolution(dim, reach=reach), st.integers(0, 2)),
    )


def encoders_of(dim):
    """All encoders: simple ones, and what is made of them."""
    return st.one_of(
        simple(dim),
        st.builds(lambda inner, e: LayerNorm(inner, epsilon=e), simple(dim), st.sampled_from([1e-3, 1e-1, 1.0])),
        st.builds(Average, simple(dim) | st.just(Zero()), simple(dim)),
        st.builds(lambda inner, m, b: Chunked(inner, particles=m, prompts=b), simple(dim), counts, counts),
    )


seeds = st.integers(0, 2**32 - 1)
dims = st.shared(st.integers(1, 5), key="dim")
arrays = {
    "encoder": dims.flatmap(encoders_of),
    "dim": dims,
    "dtype": st.sampled_from(FLOATS),
    "seed": seeds,
    "scales": st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
    "width": counts,
    "batch": counts,
    "length": st.integers(2, 9),
}


def arrays_of(encoder, dim, dtype, seed, scales, width, batch, length):
    """Particles, weights and tokens, particles and tokens at scales from 1e-3 to 1e3."""
    keys = jax.random.split(jax.random.key(seed), 3)
    particles = jax.tree.map(lambda leaf: (10.0 ** scales[0] * leaf).astype(dtype), encoder.sample(keys[0], (width,)))
    weights = jax.random.dirichlet(keys[1], jnp.ones(width)).astype(dtype)
    return particles, weights, (10.0 ** scales[1] * jax.random.normal(keys[2], (batch, dim, length))).astype(dtype)


features = st.shared(st.integers(1, 3), key="features")
cases = st.fixed_dictionaries(
    {
        # A token holds the features, y and two numbers of its position.
        "encoder": features.flatmap(lambda dim: encoders_of(dim + 3)),
        "features": features,
        "dtype": st.sampled_from(FLOATS),
        "seed": seeds,
        "batch": counts,
        "examples": counts,
        "scale": st.floats(-2, 0),
        "kind": st.sampled_from(["layered", "spectral", "staged"]),
        "width": counts,
        "depth": counts,
        "steps": st.integers(1, 3),
        "decay": st.sampled_from([0.0, 1e-3, 1.0]),
    }
)


def case_of(encoder, features, dtype, seed, batch, examples, scale, kind, width, depth, steps, decay):
    """A model of the finite kind or of the limit, on a regression problem."""
    keys = jax.random.split(jax.random.key(seed), 2)
    prompts = wgf.prompts.linear_regression(keys[0], batch=batch, examples=examples, dim=features)
    law = wgf.measures.Gaussian(encoder, 10.0**scale)
    if kind == "layered":
        model = wgf.Transformer(encoder, law.layered(depth, width, keys[1]))
    elif kind == "spectral":
        model = wgf.AveragedODE(encoder, law.spectral(depth, width, keys[1]), steps=steps)
    else:
        model = wgf.AveragedODE(encoder, law.staged(width, keys[1], steps=steps), steps=steps)
    parts = wgf.Objective(prompts, decay), model
    return Case(encoder, *jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, parts), dtype)


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@random_problems
@given(**arrays)
def test_means_and_their_gradients_are_finite_and_those_of_the_plain_mean(encoder, **sizes):
    particles, weights, tokens = arrays_of(encoder, **sizes)

    def scalar(mean, particles, weights, tokens):
        out = mean(particles, weights, tokens)
        return jnp.sum(jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape) * out)

    # The gradients of attention at scale 1e3 are sums of terms near 1e18, whose squares float32 still holds.
    fast = jax.value_and_grad(lambda *args: scalar(encoder.mean, *args), (0, 1, 2))(particles, weights, tokens)
    plain = jax.value_and_grad(lambda *args: scalar(lambda *a: plain_mean(encoder, *a), *args), (0, 1, 2))(
        particles, weights, tokens
    )
    assert finite(fast)
    assert finite(plain)
    if max(sizes["scales"]) <= 0:
        # Larger numbers make the softmax a maximum, which rounding may move from one key to another.
        assert relative(fast, plain) < 2e4 * float(jnp.finfo(tokens.dtype).eps)
    assert all(leaf.dtype == tokens.dtype for leaf in jax.tree.leaves(fast))


@random_problems
@given(cases, st.randoms(use_true_random=False))
def test_the_velocity_is_finite_and_knows_no_order_of_particles(options, random):
    case = case_of(**options)
    moved = wgf.velocity(case.objective, case.model)
    assert finite(moved)
    order = list(range(case.model.measure.width))
    random.shuffle(order)
    permute = lambda tree: jax.tree.map(lambda leaf: leaf[:, np.array(order)], tree)  # noqa: E731
    permuted = wgf.velocity(case.objective, case.model.with_particles(permute(case.model.measure.particles)))
    assert all(leaf.dtype == case.dtype for leaf in jax.tree.leaves(permuted))
    assert relative(permuted, permute(moved)) < 2e4 * case.eps


@random_problems
@given(cases)
def test_q_falls_at_the_rate_of_the_dissipation(options):
    r"""\( dQ/d\tau = -\sum_{ij} w_i a_{ij} \|v_{ij}\|^2 \), of the discretised Q, for any measure."""
    case = case_of(**options)
    moved = wgf.velocity(case.objective, case.model)
    q = lambda particles: case.objective(case.model.with_particles(particles))  # noqa: E731
    _, slope = jax.jvp(q, (case.model.measure.particles,), (moved,))
    squares = jnp.sum(wgf.measures.coordinates(moved) ** 2, axis=-1)
    dissipation = jnp.sum(case.model.measure.masses * squares)
    assert np.isfinite(slope)
    assert abs(slope + dissipation) <= 2e4 * case.eps * dissipation + 1e-30


@random_problems
@given(cases)
def test_a_flow_ends_well_or_says_why(options):
    case = case_of(**options)
    # The step size control bounds the errors of particles. Those of the integrals follow at tight tolerances.
    solution = wgf.flow(case.objective, case.model, [0.0, 0.1, 0.5], rtol=1e-5, atol=1e-6, max_steps=64, throw=False)
    assert all(leaf.dtype == case.dtype for leaf in (solution.objective, solution.dissipated))
    if solution.result == wgf.flows.RESULTS.successful:
        assert finite((solution.objective, solution.models.measure.particles, solution.dissipation))
        q = np.asarray(solution.objective)
        assert np.all(np.diff(q) <= 1e-3 * np.abs(q[:-1]) + 1e-6)
        # What Q lost is what was dissipated, up to the errors of the steps.
        np.testing.assert_allclose(q[0] - q[1:], solution.dissipated[1:], rtol=0.05, atol=2e-3 * abs(q[0]) + 1e-6)
    else:
        assert not np.isnan(np.asarray(solution.taus)).any()
        assert not solution.reached.all()
