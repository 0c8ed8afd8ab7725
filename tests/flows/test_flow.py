"""The flow: energy, symmetry, tracers, transformations, failures."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FLOATS, bound, model_of, relative

import wgf
from wgf.flows import RESULTS

TAUS = np.linspace(0, 8, 9)
KINDS = pytest.mark.parametrize("kind", ["finite", "limit"])


@KINDS
def test_objective_falls_by_the_integrated_dissipation(problem, key, kind):
    solution = wgf.flow(problem[0], model_of(problem, kind, key), TAUS, rtol=bound(1e-7, 1e-6), atol=bound(1e-9, 1e-8))
    drop = solution.objective[0] - solution.objective
    assert np.all(np.diff(solution.objective) < 0), solution.objective
    np.testing.assert_allclose(drop, solution.dissipated, rtol=0, atol=1e-4 * drop[-1])
    assert drop[-1] > 1e-3, "the case must move"


@KINDS
def test_dissipation_is_the_rate_of_the_objective(problem, key, kind):
    step = bound(1e-3, 5e-2)
    taus = np.array([0.0, 1 - step, 1.0, 1 + step])
    solution = wgf.flow(
        problem[0], model_of(problem, kind, key), taus, rtol=bound(1e-10, 1e-6), atol=bound(1e-12, 1e-8)
    )
    rate = -(solution.objective[3] - solution.objective[1]) / (2 * step)
    np.testing.assert_allclose(solution.dissipation[2], rate, rtol=bound(1e-5, 2e-3))


@KINDS
def test_permuting_particles_permutes_the_solution(problem, key, kind):
    model = model_of(problem, kind, key)
    order = jnp.array([3, 1, 5, 0, 2, 4])
    shuffled = model.with_particles(jax.tree.map(lambda leaf: leaf[:, order], model.measure.particles))
    a, b = (wgf.flow(problem[0], m, TAUS[:3]) for m in (model, shuffled))
    np.testing.assert_allclose(a.objective, b.objective, rtol=bound(1e-12, 1e-5))
    permuted = jax.tree.map(lambda leaf: leaf[:, :, order], a.models.measure.particles)
    assert relative(b.models.measure.particles, permuted) < bound(1e-10, 1e-5)


@KINDS
def test_splitting_a_particle_changes_nothing(problem, key, kind):
    model = model_of(problem, kind, key)
    measure = model.measure
    split = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:, :1]], axis=1), measure.particles)
    weights = jnp.array([1 / 12, 1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 12])
    double = eqx.tree_at(lambda m: m.measure, model, type(measure)(split, weights))
    a, b = (wgf.flow(problem[0], m, TAUS[:3]) for m in (model, double))
    np.testing.assert_allclose(a.objective, b.objective, rtol=bound(1e-12, 1e-5))
    kept = jax.tree.map(lambda leaf: leaf[:, :, :6], b.models.measure.particles)
    twin = jax.tree.map(lambda leaf: leaf[:, :, 6] - leaf[:, :, 0], b.models.measure.particles)
    assert relative(kept, a.models.measure.particles) < bound(1e-10, 1e-5)
    assert max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(twin)) < bound(1e-12, 1e-5)


@pytest.mark.heavy
@KINDS
@pytest.mark.parametrize("dtype", FLOATS)
def test_weight_zero_feels_the_field_and_makes_none(problem, key, kind, dtype):
    """A particle of weight zero follows its twin of positive weight, and the solution does not see it."""

    def cast(tree):
        return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)

    objective, model = cast(problem[0]), cast(model_of(problem, kind, key))
    measure = model.measure
    more = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:, 1:2]], axis=1), measure.particles)
    weights = jnp.concatenate([measure.weights[0], jnp.zeros(1, dtype)])
    traced = eqx.tree_at(lambda m: m.measure, model, type(measure)(more, weights))
    # In float32 rounding has a say in where adaptive steps end.
    steps = {} if dtype == jnp.float64 else {"controller": diffrax.ConstantStepSize(), "dt0": 0.1}
    a, b = (wgf.flow(objective, m, TAUS[:3], **steps) for m in (model, traced))
    bound = 1e-12 if dtype == jnp.float64 else 2e-5
    assert a.objective.dtype == dtype
    assert int(a.stats["num_steps"]) == int(b.stats["num_steps"])
    np.testing.assert_allclose(a.objective, b.objective, rtol=bound)
    twin = jax.tree.map(lambda leaf: leaf[:, :, 6], b.models.measure.particles)
    original = jax.tree.map(lambda leaf: leaf[:, :, 1], b.models.measure.particles)
    assert relative(twin, original) < bound


def test_tracers_follow_the_particles_in_the_finite_model(problem, key):
    """A Transformer's own particles as its tracers move exactly as they do, and leave it alone."""
    model = model_of(problem, "finite", key)
    alone, along = (wgf.flow(problem[0], m, TAUS[:4]) for m in (model, model.with_tracers(model)))
    np.testing.assert_allclose(alone.objective, along.objective, rtol=bound(1e-13, 1e-6))
    assert int(alone.stats["num_steps"]) == int(along.stats["num_steps"])
    assert relative(along.models.tracers[0].particles, along.models.measure.particles) < bound(1e-10, 1e-5)


def twin_error(objective, encoder, nodes):
    """How far tracers at depths 0 and ½ stray from the limit's particles that started where they did."""
    shared = wgf.measures.Gaussian(encoder, 0.5).spectral(1, 4, jax.random.key(5)).particles

    def tile(n):
        return jax.tree.map(lambda leaf: jnp.repeat(leaf, n, axis=0), shared)

    limit = wgf.AveragedODE(encoder, wgf.measures.Spectral(tile(nodes)), steps=16)
    limit = limit.with_tracers(wgf.Transformer(encoder, wgf.measures.Layered(tile(2))))
    solved = wgf.flow(objective, limit, TAUS[:2], rtol=1e-6).model_at(-1)
    followed = jax.tree.map(lambda leaf: leaf[1], solved.tracers[0].particles)
    return relative(followed, solved.measure.at(0.5)[0])


@pytest.mark.slow
def test_tracers_follow_the_particles_in_the_limit(problem):
    """Tracers move by the field at their depth, particles by its polynomial: the same as nodes are added."""
    errors = {nodes: twin_error(problem[0], problem[1], nodes) for nodes in (2, 3, 5)}
    assert errors[5] < 1e-6, errors
    assert errors[2] > 5 * errors[3] > 25 * errors[5], errors


@pytest.mark.heavy
def test_a_large_tracer_velocity_does_not_change_the_steps(problem, key):
    model = model_of(problem, "limit", key)
    far = wgf.Transformer(model.encoder, wgf.measures.Gaussian(model.encoder, 30.0).layered(2, 3, key))
    alone, along = (wgf.flow(problem[0], m, TAUS[:3]) for m in (model, model.with_tracers(far)))
    assert int(alone.stats["num_steps"]) == int(along.stats["num_steps"])
    np.testing.assert_allclose(alone.objective, along.objective, rtol=bound(1e-13, 1e-6))


@pytest.mark.slow
def test_depth_nodes_converge_geometrically(problem, key):
    """Output error against 6 nodes falls at least tenfold with each node, from 1 to 4."""
    objective, encoder, law = problem
    outputs = {}
    for nodes in (1, 2, 3, 4, 6):
        model = wgf.AveragedODE(encoder, law.spectral(nodes, 8, key), steps=6)
        outputs[nodes] = wgf.flow(
            objective, model, [0.0, 8.0], rtol=bound(1e-9, 1e-6), atol=bound(1e-11, 1e-8)
        ).outputs[-1]
    errors = {n: float(jnp.sqrt(jnp.mean((outputs[n] - outputs[6]) ** 2))) for n in (1, 2, 3, 4)}
    ratios = [errors[n] / errors[n + 1] for n in (1, 2, 3)]
    assert min(ratios) >= 10, f"errors {errors}, ratios {ratios}"
    assert errors[1] < 1, errors


@pytest.mark.heavy
def test_jit_vmap_and_eager_agree(problem, key):
    objective, encoder, law = problem
    keys = jax.random.split(key, 3)

    def final(key):
        return wgf.flow(objective, wgf.Transformer(encoder, law.layered(2, 4, key)), TAUS[:3]).objective

    eager = jnp.stack([final(k) for k in keys])
    np.testing.assert_allclose(jax.jit(final)(keys[0]), eager[0], rtol=bound(1e-10, 1e-5))
    # One step size serves all rows of a vmapped adaptive solve, row by row its own: same answers.
    np.testing.assert_allclose(jax.vmap(final)(keys), eager, rtol=bound(1e-7, 1e-4))


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["finite", pytest.param("limit", marks=pytest.mark.slow)])
def test_gradient_through_flow_is_the_finite_difference(problem, key, kind):
    objective, encoder, _ = problem

    def final(scale):
        model = model_of((objective, encoder, wgf.measures.Gaussian(encoder, scale)), kind, key, width=2)
        return wgf.flow(objective, model, [0.0, 2.0], rtol=1e-6, atol=1e-8, max_steps=64).objective[-1]

    step = bound(1e-4, 3e-2)
    difference = (final(0.7 + step) - final(0.7 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(final)(0.7), difference, rtol=bound(1e-4, 5e-3))


@pytest.mark.heavy
def test_steady_stop_keeps_the_steady_model(problem, key):
    objective, model = problem[0], model_of(problem, "finite", key)
    solution = wgf.flow(objective, model, [0.0, 1.0, 1e4, 2e4], steady=0.2)
    assert solution.result == RESULTS.event_occurred
    np.testing.assert_array_equal(solution.reached, [True, True, False, False])
    assert 0.01 < solution.dissipation[-1] / solution.dissipation[0] <= 0.2
    np.testing.assert_array_equal(solution.objective[-1], solution.objective[-2])


def test_steady_at_once_takes_no_time(problem, key):
    solution = wgf.flow(problem[0], model_of(problem, "finite", key), [0.0, 10.0, 20.0, 30.0], steady=1.0)
    assert solution.result == RESULTS.event_occurred
    assert solution.dissipated[-1] == pytest.approx(0, abs=bound(1e-12, 1e-5))


def test_out_of_steps_says_so(problem, key):
    model = model_of(problem, "finite", key)
    with pytest.raises(eqx.EquinoxRuntimeError, match="ran out of steps"):
        wgf.flow(problem[0], model, TAUS, max_steps=2)
    solution = wgf.flow(problem[0], model, TAUS, max_steps=2, throw=False)
    assert solution.result == RESULTS.stalled
    assert not solution.reached[-1]
    assert np.isnan(solution.objective[-1])
    assert np.isfinite(solution.objective[0])


def test_divergence_is_not_success(problem, key):
    """Euler steps far above the stability limit blow up; NaN must not read as a solution."""
    options = {"solver": diffrax.Euler(), "controller": diffrax.ConstantStepSize(), "dt0": 1e4}
    model = model_of(problem, "finite", key)
    with pytest.raises(eqx.EquinoxRuntimeError, match="stopped being finite"):
        wgf.flow(problem[0], model, [0.0, 1e6], **options)
    assert wgf.flow(problem[0], model, [0.0, 1e6], throw=False, **options).result == RESULTS.not_finite


@pytest.mark.parametrize(
    ("taus", "message"),
    [
        ([0.0, 1.0, 1.0], "`taus` must increase"),
        ([0.0, -1.0], "`taus` must increase"),
        ([0.0], "at least two"),
        (3.0, "at least two"),
        ([0.0, np.nan], "`taus` must be finite"),
    ],
)
def test_bad_taus(problem, key, taus, message):
    with pytest.raises(ValueError, match=message):
        wgf.flow(problem[0], model_of(problem, "finite", key), np.asarray(taus))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rtol": -1.0}, "`rtol` must be positive"),
        ({"atol": 0.0}, "`atol` must be positive"),
        ({"steady": -0.1}, "`steady` must be positive"),
        ({"max_steps": 0}, "`max_steps` must be a whole number"),
        ({"controller": diffrax.ConstantStepSize()}, "`dt0` must be given"),
    ],
)
def test_bad_options(problem, key, options, message):
    with pytest.raises(ValueError, match=message):
        wgf.flow(problem[0], model_of(problem, "finite", key), TAUS, **options)


@pytest.mark.heavy
def test_traced_taus_that_do_not_increase_raise_in_the_run(problem, key):
    model = model_of(problem, "finite", key)
    with pytest.raises(eqx.EquinoxRuntimeError, match="`taus` must increase"):
        eqx.filter_jit(wgf.flow)(problem[0], model, jnp.array([1.0, 0.0]))


def test_a_flow_begins_at_its_first_time(problem, key):
    """`taus[0]` is the time of the model that is passed: the last time of an earlier flow continues that flow."""
    objective, model = problem[0], model_of(problem, "finite", key)
    options = {"rtol": bound(1e-9, 1e-6), "atol": bound(1e-11, 1e-8)}
    whole = wgf.flow(objective, model, [0.0, 2.0], **options)
    first = wgf.flow(objective, model, [0.0, 1.0], **options)
    second = wgf.flow(objective, first.model_at(-1), [1.0, 2.0], **options)
    np.testing.assert_array_equal(second.taus, [1.0, 2.0])
    np.testing.assert_allclose(second.objective[0], first.objective[-1], rtol=bound(1e-12, 1e-5))
    np.testing.assert_allclose(second.objective[-1], whole.objective[-1], rtol=bound(1e-8, 1e-4))


def test_model_at_gives_one_model(problem, key):
    solution = wgf.flow(problem[0], model_of(problem, "finite", key), TAUS[:3])
    for index in (0, -1):
        np.testing.assert_allclose(
            problem[0](solution.model_at(index)), solution.objective[index], rtol=bound(1e-12, 1e-5)
        )
    np.testing.assert_allclose(jax.vmap(problem[0])(solution.models), solution.objective, rtol=bound(1e-12, 1e-5))


def test_second_flow_of_the_same_shapes_does_not_compile_again(problem, key):
    """Other keys, times and tolerances are data, not programs."""
    traces = []

    class Counted(wgf.objective.AbstractLoss):
        def __call__(self, outputs, labels):
            traces.append(1)
            return (outputs - labels) ** 2

        def check(self, outputs, labels):
            pass

    objective = wgf.Objective(problem[0].prompts, 1e-2, loss=Counted())
    wgf.flow(objective, model_of(problem, "finite", key), TAUS[:3], rtol=1e-3)
    first = len(traces)
    wgf.flow(objective, model_of(problem, "finite", jax.random.key(3)), TAUS[1:4], rtol=2e-3)
    assert first > 0
    assert len(traces) == first
