"""NaN never reads as success: not in a tracer, nor in a parameter that Q does not see."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Matrix, programs, regression

import wgf
from wgf.flows import RESULTS, _velocity as velocity_module
from wgf.models import _base as models_base

TAUS = [0.0, 0.5, 1.0]


class Half(eqx.Module):
    """Q sees `x` alone."""

    x: jnp.ndarray
    unseen: jnp.ndarray


def bowl(module):
    return jnp.sum(module.x**2) / 2


@pytest.fixture(scope="module")
def problem():
    """An objective, a limit whose tracers have one NaN in their last layer, and the tracers' own model, finite."""
    key = jax.random.key(5)
    prompts = regression(key, batch=2)
    encoder = Matrix(prompts.token_dim)
    law = wgf.measures.Gaussian(encoder, 0.5)
    finite = wgf.Transformer(encoder, law.layered(3, 2, key))
    limits = [wgf.AveragedODE(encoder, law.spectral(2, 3, k)) for k in jax.random.split(key)]
    return wgf.Objective(prompts, 1e-2), limits, finite


@pytest.fixture
def unguarded(monkeypatch):
    """Without the check of the arguments, so that the solve itself meets the NaN, as it does under `jit`."""
    for module in (models_base, velocity_module):
        monkeypatch.setattr(module, "finite_leaves", lambda argument, tree: None)


def broken(model):
    """The same model with one NaN in its last layer."""
    return eqx.tree_at(lambda m: m.measure.particles, model, model.measure.particles.at[-1, 0, 0, 0].set(jnp.nan))


@pytest.mark.usefixtures("unguarded")
def test_a_tracer_that_is_no_number_fails_the_flow(problem):
    objective, (limit, _), finite = problem
    traced = limit.with_tracers(broken(finite))
    solution = wgf.flow(objective, traced, TAUS, throw=False)
    assert jnp.isfinite(solution.objective).all()
    assert solution.result == RESULTS.not_finite
    with pytest.raises(eqx.EquinoxRuntimeError, match="stopped being finite"):
        wgf.flow(objective, traced, TAUS)
    assert wgf.flow(objective, limit.with_tracers(finite), TAUS).result == RESULTS.successful


@pytest.mark.usefixtures("unguarded")
def test_a_tracer_that_is_no_number_fails_the_run(problem, tmp_path):
    objective, (limit, _), finite = problem
    traced = limit.with_tracers(broken(finite))
    solution = wgf.run(objective, traced, TAUS, progress=False, throw=False)
    assert solution.result == RESULTS.not_finite
    with pytest.raises(RuntimeError, match="stopped being finite"):
        wgf.run(objective, traced, TAUS, progress=False, directory=tmp_path)
    # No state that is broken is kept to go on from.
    assert not list((tmp_path / "checkpoints").glob("*"))


@pytest.mark.usefixtures("unguarded")
def test_a_tracer_that_is_no_number_fails_replicates(problem):
    objective, limits, finite = problem
    solution = wgf.flow_replicates(objective, limits, TAUS, tracers=[broken(finite)], throw=False)
    assert solution.pooled.result == RESULTS.not_finite
    assert (solution.members.result == RESULTS.successful).all()
    with pytest.raises(eqx.EquinoxRuntimeError, match="stopped being finite"):
        solution.raise_if_failed()


@pytest.mark.usefixtures("unguarded")
@pytest.mark.parametrize("way", ["flow", "run", "train"])
def test_a_parameter_that_q_does_not_see_must_be_a_number(way):
    # An adaptive control sees the parameters themselves.
    constant = {"solver": diffrax.Euler(), "controller": diffrax.ConstantStepSize(), "dt0": 0.5}
    solve = {
        "flow": lambda module, **options: wgf.flow(bowl, module, TAUS, **constant, **options),
        "run": lambda module, **options: wgf.run(bowl, module, TAUS, progress=False, **constant, **options),
        "train": lambda module, **options: wgf.train(bowl, module, optax.sgd(0.1), steps=2, **options),
    }[way]
    assert solve(Half(jnp.ones(2), jnp.zeros(3))).result == RESULTS.successful
    module = Half(jnp.ones(2), jnp.array([0.0, jnp.nan, 0.0]))
    solution = solve(module, throw=False)
    assert jnp.isfinite(solution.objective).all()
    assert solution.result == RESULTS.not_finite
    with pytest.raises((RuntimeError, eqx.EquinoxRuntimeError), match="stopped being finite"):
        solve(module)


@pytest.mark.parametrize("way", ["flow", "run", "train"])
def test_a_velocity_must_be_a_number_up_to_the_last_state(way):
    """One step of Euler leads from 1 to 0, where √(x²) is a number and its derivative is none."""
    options = {"solver": diffrax.Euler(), "controller": diffrax.ConstantStepSize(), "dt0": 1.0, "throw": False}

    def distance(module):
        return jnp.sum(jnp.sqrt(module.x**2))

    module = Half(jnp.ones(1), jnp.zeros(1))
    if way == "train":
        solution = wgf.train(distance, module, optax.sgd(1.0), steps=1, throw=False)
    else:
        solve = wgf.flow if way == "flow" else functools.partial(wgf.run, progress=False)
        solution = solve(distance, module, [0.0, 1.0], **options)
    np.testing.assert_array_equal(solution.objective, [1.0, 0.0])
    assert solution.result == RESULTS.not_finite


def test_what_is_known_is_checked_before_anything_is_compiled(problem):
    objective, limits, finite = problem
    limit = limits[0]
    ways = {
        "flow": lambda model: wgf.flow(objective, model, TAUS, throw=False),
        "run": lambda model: wgf.run(objective, model, TAUS, throw=False, progress=False),
        "train": lambda model: wgf.train(objective, model, optax.sgd(0.1), steps=1, throw=False),
        "velocity": lambda model: wgf.velocity(objective, model),
        "first variation": lambda model: objective.first_variation(model),
        "certificate": lambda model: wgf.analysis.certificate(objective, model, key=jax.random.key(0)),
        "memory": lambda model: wgf.memory_estimate(objective, model, TAUS),
    }
    infinite = eqx.tree_at(lambda m: m.measure.weights, finite, finite.measure.weights.at[0, 0].set(jnp.inf))
    models = {
        "measure.particles": broken(limit),
        "tracers.0.particles": limit.with_tracers(broken(finite)),
        "measure.weights": infinite,
    }
    with programs() as compiled:
        for way in ways.values():
            for where, model in models.items():
                with pytest.raises(ValueError, match=rf"must be finite; got 1 of \d+ entries .* in `{where}`"):
                    way(model)
        with pytest.raises(ValueError, match=r"must be finite; got 1 of \d+ entries .* in `measure.particles`"):
            wgf.flow_replicates(objective, [limit, broken(limit)], TAUS)
        with pytest.raises(ValueError, match=r"must be finite; got 1 of \d+ entries .* in `tracers.0.particles`"):
            wgf.flow_replicates(objective, limits, TAUS, tracers=[broken(finite)])
    assert not {"jit(_flow)", "jit(advance)", "jit(_train)"} & set(compiled)


def test_a_plain_module_that_is_not_finite_names_its_array():
    module = Half(jnp.ones(2), jnp.array([0.0, -jnp.inf, 0.0]))
    with pytest.raises(
        ValueError, match=r"`model` must be finite; got 1 of 3 entries .* in `unseen`. Draw new particles"
    ):
        wgf.flow(bowl, module, TAUS)
    # Within `jit` numbers are unknown: the solve says it.
    solution = eqx.filter_jit(lambda module: wgf.flow(bowl, module, TAUS, throw=False))(module)
    assert solution.result == RESULTS.not_finite


@pytest.mark.heavy
def test_a_gap_is_no_number_where_a_solution_is_none(problem):
    """Also where the NaN lies in a layer whose clouds are not compared, or in tracers alone."""
    objective, (limit, _), finite = problem
    good = wgf.flow(objective, finite, TAUS)
    traced = wgf.flow(objective, limit.with_tracers(finite), TAUS)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(wgf.gap(good, traced)))

    def spoilt(solution, where):
        return eqx.tree_at(where, solution, replace_fn=lambda leaf: leaf.at[1, -1, 0].set(jnp.nan))

    in_model = spoilt(good, lambda s: s.models.measure.particles)
    in_tracers = spoilt(traced, lambda s: s.models.tracers[0].particles)
    for finite_flow, limit_flow in ((in_model, traced), (good, in_tracers)):
        gap = wgf.gap(finite_flow, limit_flow, most_depths=1, unpaired=True)
        gaps = (gap.objective, gap.risk, gap.output, gap.gelbrich, gap.coupling, gap.unpaired.value, gap.unpaired.floor)
        for values in gaps:
            np.testing.assert_array_equal(np.isfinite(values), [True, False, True])
        np.testing.assert_array_equal(np.isfinite(gap.sinkhorn), [True, False, True])
        np.testing.assert_array_equal(gap.distances.converged, [True, False, True])
        np.testing.assert_array_equal(gap.unpaired.converged, [True, False, True])


def test_diagnose_finds_what_q_does_not_see(problem, key):
    objective, _, finite = problem
    solution = wgf.flow(objective, finite, TAUS)
    failed = eqx.tree_at(lambda s: s.result, solution, RESULTS.not_finite)
    (found,) = wgf.analysis.diagnose(objective, failed, key=key)
    assert found.signature == "ended early"
    assert "stopped being finite" in found.advice


def test_codes_have_names():
    assert "successful" in repr(RESULTS.successful)
    assert RESULTS[RESULTS.successful] == "successful"
