"""The gap of two flows."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, regression

import wgf

TAUS = [0.0, 2.0, 4.0]


@pytest.fixture(scope="module")
def flows():
    key = jax.random.key(3)
    prompts = regression(key)
    encoder = averaged(prompts.token_dim)
    objective, law = wgf.Objective(prompts, 1e-2), wgf.measures.Gaussian(encoder, 0.7)
    finite = wgf.Transformer(encoder, law.layered(3, 8, key))
    limit = wgf.AveragedODE(encoder, law.spectral(2, 24, jax.random.key(4)), steps=2)
    return (
        wgf.flow(objective, finite, TAUS),
        wgf.flow(objective, limit, TAUS),
        wgf.flow(objective, limit.with_tracers(finite), TAUS),
    )


def test_gaps_are_differences(flows):
    finite, limit, _ = flows
    gap = wgf.gap(finite, limit)
    np.testing.assert_array_equal(gap.objective, finite.objective - limit.objective)
    np.testing.assert_array_equal(gap.risk, finite.risk - limit.risk)
    np.testing.assert_allclose(gap.output, np.sqrt(np.mean((finite.outputs - limit.outputs) ** 2, 1)), rtol=1e-12)
    assert gap.coupling is None
    assert gap.sinkhorn.converged.all()


def test_tracers_give_the_coupling_distance_and_the_floor(flows):
    finite, _, traced = flows
    gap = wgf.gap(finite, traced)
    assert gap.coupling[0] == 0
    assert gap.sinkhorn.excess[0] == pytest.approx(0, abs=1e-9)
    # The coupling is one transport plan of many: W₂² between the clouds lies below it.
    own = wgf.transport.conditional_divergence(
        wgf.measures.coordinates(finite.model_at(-1).measure.particles),
        wgf.measures.coordinates(traced.model_at(-1).tracers[0].particles),
        jnp.full(3, 1 / 3),
        epsilon=0.05,
    )
    assert 0 < own.value <= gap.coupling[-1] * 1.01, (own.value, gap.coupling)


def test_a_solution_has_no_gap_to_itself(flows):
    gap = wgf.gap(flows[0], flows[0])
    assert np.abs(gap.output).max() == 0
    assert np.abs(gap.risk).max() == 0


def test_epsilon_is_one_for_all_times(flows):
    given = wgf.gap(flows[0], flows[1], epsilon=7.0)
    chosen = wgf.gap(flows[0], flows[1])
    np.testing.assert_array_equal(given.sinkhorn.epsilon, 7.0)
    assert len(set(chosen.sinkhorn.epsilon.tolist())) == 1


def test_what_cannot_be_compared_is_refused(flows):
    finite, limit, traced = flows
    later = eqx.tree_at(lambda s: s.taus, limit, limit.taus + 1)
    with pytest.raises(ValueError, match="`limit` must be solved at the taus"):
        wgf.gap(finite, later)
    fewer = eqx.tree_at(lambda s: s.outputs, limit, limit.outputs[:, :2])
    with pytest.raises(ValueError, match="`limit` must have outputs on the prompts"):
        wgf.gap(finite, fewer)
    with pytest.raises(ValueError, match="`most_depths` must be a whole number"):
        wgf.gap(finite, limit, most_depths=0)
    twice = eqx.tree_at(lambda s: s.models.tracers, traced, traced.models.tracers * 2)
    with pytest.raises(ValueError, match="one set of tracers"):
        wgf.gap(finite, twice)
