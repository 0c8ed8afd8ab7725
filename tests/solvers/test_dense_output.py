"""Dense output in depth against Diffrax, with numbers at all of [0, 1], alone and in the adjoint."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, bound, regression, relative
from hypothesis import example, given, settings, strategies as st

import wgf
from wgf.flows import tracer_velocity
from wgf.solvers._constant_steps import march_densely

SOLVERS = {
    "Tsit5": diffrax.Tsit5(),
    "Heun": diffrax.Heun(),
    "Bosh3": diffrax.Bosh3(),
    "Dopri5": diffrax.Dopri5(),
    "Ralston": diffrax.Ralston(),
    "Midpoint": diffrax.Midpoint(),
    "eighths": wgf.measures.EqualEighths(),
    "three eighths": wgf.measures.ThreeEighths(),
}
# The least precise first; the last is that of the references.
TYPES = {"float32": (np.float32, bound(2e-5, 4e-5))} | ({"float64": (np.float64, 1e-11)} if bound(True, False) else {})
FINEST = list(TYPES)[-1]
MATRIX = np.random.default_rng(0).normal(size=(3, 3)) / 2
START = np.random.default_rng(1).normal(size=(2, 3, 2))
COUNT = 9


def swirl(depth, tokens):
    """A field that depends on depth."""
    return jnp.cos(3 * jnp.asarray(depth, tokens.dtype)) * jnp.tanh(jnp.asarray(MATRIX, tokens.dtype) @ tokens)


@functools.cache
def by_diffrax(solver, falling):
    """Diffrax's own dense output at `COUNT` depths, of any number of steps: one program for each solver."""

    @jax.jit
    def solve(steps, depths):
        ends = (1.0, 0.0) if falling else (0.0, 1.0)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda depth, tokens, _: swirl(depth, tokens)),
            SOLVERS[solver],
            *ends,
            (ends[1] - ends[0]) / steps,
            jnp.asarray(START),
            saveat=diffrax.SaveAt(dense=True),
            max_steps=13,
        )
        return jax.vmap(solution.interpolation.evaluate)(depths)

    return solve


def ends_and_neighbours(dtype):
    """Depths at both ends, and the nearest numbers to either side of them."""
    one, zero = np.asarray(1, dtype), np.asarray(0, dtype)
    return [
        zero,
        np.nextafter(zero, -one),
        np.nextafter(zero, one),
        np.nextafter(one, zero),
        one,
        np.nextafter(one, 2 * one),
    ]


@pytest.mark.heavy
@example("Tsit5", 3, "float32", True, [0.5, 1 / 3, 2 / 3])
@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(list(SOLVERS)),
    st.integers(1, 12),
    st.sampled_from(list(TYPES)),
    st.booleans(),
    st.lists(st.floats(0, 1), min_size=COUNT - 6, max_size=COUNT - 6),
)
def test_dense_output_is_diffrax_own_within_and_has_numbers_at_the_ends(solver, steps, kind, falling, inside):
    dtype, most = TYPES[kind]
    depths = np.array([*ends_and_neighbours(dtype), *np.asarray(inside, dtype)], dtype)
    ends = (1, 0) if falling else (0, 1)

    @jax.jit
    def evaluated(start, depths):
        return jax.vmap(march_densely(swirl, SOLVERS[solver], steps, start, *ends).evaluate)(depths)

    found = evaluated(jnp.asarray(START, dtype), depths)
    assert found.dtype == dtype
    expected = by_diffrax(solver, falling)(steps, depths.astype(float).clip(0, 1))
    assert relative(found.astype(expected.dtype), expected) < most


@functools.cache
def limit_problem(kind):
    dtype, _ = TYPES[kind]
    key = jax.random.key(11)
    prompts = regression(key, batch=2, examples=2)
    encoder = Matrix(prompts.token_dim)
    law = wgf.measures.Gaussian(encoder, 0.5)
    arrays = (prompts, law.spectral(2, 3, key), law.layered(4, 2, key))
    prompts, spectral, layered = jax.tree.map(lambda x: x.astype(dtype), arrays)
    return wgf.Objective(prompts, 1e-2), encoder, spectral, wgf.Transformer(encoder, layered)


@functools.cache
def adjoint_by_diffrax(solver):
    """T(t) and p(t) by Diffrax alone, in float64 where there is one, of any number of steps."""
    objective, encoder, spectral, _ = limit_problem(FINEST)
    field = wgf.AveragedODE(encoder, spectral).field

    def solve(field, start, t0, t1, steps):
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, _: field(t, y)),
            SOLVERS[solver],
            t0,
            t1,
            (t1 - t0) / steps,
            start,
            saveat=diffrax.SaveAt(dense=True),
            max_steps=13,
        )
        return lambda t: found.interpolation.evaluate(jnp.clip(t, 0, 1))

    @jax.jit
    def both(steps, depths):
        prompts = objective.prompts
        tokens = solve(field, prompts.tokens, 0.0, 1.0, steps)

        def pull(t, costates):
            return -jax.vjp(lambda y: field(t, y), tokens(t))[1](costates)[0]

        def loss(tokens):
            return jnp.sum(objective.loss(objective.readout(tokens), prompts.labels))

        costates = solve(pull, jax.grad(loss)(tokens(1.0)), 1.0, 0.0, steps)
        return jax.vmap(tokens)(depths), jax.vmap(costates)(depths)

    return both


@pytest.mark.heavy
@example("Tsit5", 3, "float32")
@settings(max_examples=3, deadline=None)
@given(st.sampled_from(list(SOLVERS)), st.integers(1, 12), st.sampled_from(list(TYPES)))
def test_adjoint_tracers_and_first_variation_have_numbers_at_all_depths(solver, steps, kind):
    """Against tokens and costates of Diffrax; of a linear encoder g(T, W) = W T, ∇ δQ/δρ = E p Tᵀ + λ W."""
    dtype, most = TYPES[kind]
    objective, encoder, spectral, finite = limit_problem(kind)
    model = wgf.AveragedODE(encoder, spectral, solver=SOLVERS[solver], steps=steps).with_tracers(finite)
    depths = np.array([*ends_and_neighbours(dtype), 0.25, 0.5, 0.75], dtype)
    particles = finite.measure.particles

    @jax.jit
    def all_of_it(objective, model):
        variation = objective.first_variation(model)
        fields = jax.vmap(variation.adjoint.tokens)(depths), jax.vmap(variation.adjoint.costates)(depths)
        values = jax.vmap(lambda t: variation(particles[0, 0], t))(depths)
        return fields, values, tracer_velocity(objective, model)[0]

    fields, values, velocity = all_of_it(objective, model)
    tokens, costates = expected = adjoint_by_diffrax(solver)(steps, depths.astype(float).clip(0, 1))
    assert relative(fields, expected) < most
    decay, weights = 1e-2, np.asarray(objective.prompts.weights, float)
    w = np.asarray(particles, float)
    pairs = np.einsum("b,tbdn,tben->tde", weights, costates, tokens)
    np.testing.assert_allclose(
        values, np.einsum("tde,de->t", pairs, w[0, 0]) + decay / 2 * np.sum(w[0, 0] ** 2), rtol=50 * most, atol=most
    )
    at_layers = pairs[[0, 6, 7, 8]][:, None] + decay * w
    assert relative(np.asarray(velocity, float), -at_layers) < 10 * most


@pytest.mark.parametrize("controller", [diffrax.ConstantStepSize(), diffrax.PIDController(1e-3, 1e-5)])
def test_dense_output_is_evaluated_without_a_loop(controller):
    """XLA for GPUs compiles no slice, within a loop, whose place an inner loop has found."""
    objective, encoder, spectral, _ = limit_problem("float32")
    adjoint = objective.adjoint(wgf.AveragedODE(encoder, spectral, controller=controller))
    program = str(jax.make_jaxpr(lambda t: (adjoint.tokens(t), adjoint.costates(t)))(0.3))
    assert "while" not in program
    assert "scan" not in program


def test_an_adaptive_solve_has_numbers_at_the_ends_too(key):
    objective, encoder, spectral, finite = limit_problem("float32")
    model = wgf.AveragedODE(encoder, spectral, controller=diffrax.PIDController(1e-3, 1e-5)).with_tracers(finite)
    adjoint = objective.adjoint(model)
    for depth in ends_and_neighbours(np.float32):
        assert jnp.isfinite(adjoint.tokens(depth)).all()
        assert jnp.isfinite(adjoint.costates(depth)).all()
    exact = objective.adjoint(wgf.AveragedODE(encoder, spectral, steps=16))
    assert relative(adjoint.costates(0.3), exact.costates(0.3)) < 2e-3
