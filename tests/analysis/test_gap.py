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


@pytest.fixture(scope="module")
def replicated(flows):
    """The gaps of the finite model to a limit of three replicates, without tracers and with."""
    finite = flows[0]
    objective = wgf.Objective(regression(jax.random.key(3)), 1e-2)
    law, encoder = wgf.measures.Gaussian(finite.models.encoder, 0.7), finite.models.encoder
    limits = [wgf.AveragedODE(encoder, law.spectral(2, 8, k), steps=2) for k in jax.random.split(jax.random.key(5), 3)]
    replicates = wgf.flow_replicates(objective, limits, TAUS, tracers=[finite.model_at(0)])
    bare = eqx.tree_at(lambda r: r.pooled.models.tracers, replicates, ())
    return replicates, wgf.gap(finite, bare), wgf.gap(finite, replicates)


def test_a_single_solution_does_not_know_its_noise(flows):
    gap = wgf.gap(flows[0], flows[1])
    assert gap.noise is None
    assert gap.resolved is None
    np.testing.assert_array_equal(gap.squared_output(), gap.output**2)


def test_replicates_are_compared_by_their_pooled_solution(flows, replicated):
    replicates, _, gap = replicated
    plain = wgf.gap(flows[0], replicates.pooled)
    for name in ("objective", "risk", "output", "coupling"):
        np.testing.assert_array_equal(getattr(gap, name), getattr(plain, name))
    np.testing.assert_array_equal(gap.sinkhorn.excess, plain.sinkhorn.excess)


def test_the_noise_is_the_error_of_the_pooled_solution(flows, replicated):
    replicates, _, gap = replicated
    np.testing.assert_array_equal(gap.noise.objective, replicates.objective.error)
    np.testing.assert_array_equal(gap.noise.risk, replicates.risk.error)
    np.testing.assert_allclose(gap.noise.output, np.sqrt(np.mean(replicates.outputs.error**2, 1)), rtol=1e-12)
    np.testing.assert_array_equal(gap.noise.coupling, replicates.transport_error())
    np.testing.assert_allclose(gap.squared_output(), gap.output**2 - gap.noise.output**2, rtol=1e-12)
    assert gap.noise.excess is None
    assert gap.resolved.excess is None


def test_without_tracers_each_replicate_serves_as_the_floor(flows, replicated):
    """The floors one by one: each replicate's cloud against all the others'."""
    _, gap, _ = replicated
    models = replicated[0].pooled.model_at(-1)
    law, _ = jax.vmap(models.measure.at)(jnp.arange(3) / 3)
    cloud = wgf.measures.coordinates(law)
    floors = []
    for r in range(3):
        part, rest = cloud[:, 8 * r : 8 * r + 8], jnp.delete(cloud, slice(8 * r, 8 * r + 8), axis=1)
        epsilon = gap.sinkhorn.epsilon[-1]
        floors += [wgf.transport.conditional_divergence(part, rest, jnp.full(3, 1 / 3), epsilon=epsilon).value]
    np.testing.assert_allclose(gap.sinkhorn.floor[-1], np.mean(floors), rtol=1e-6)
    np.testing.assert_allclose(gap.noise.excess[-1], np.std(floors, ddof=1) * np.sqrt(4 / 3), rtol=1e-4)
    assert gap.coupling is None
    assert gap.noise.coupling is None
    assert gap.resolved.coupling is None
    np.testing.assert_array_equal(gap.resolved.excess, gap.sinkhorn.excess > 4.3026527 * gap.noise.excess)


def test_gaps_are_resolved_above_students_quantile_of_the_noise():
    noise = wgf.analysis.Noise(3, *(jnp.array([1.0, 1.0, 1.0]) for _ in range(5)))
    assert noise.factor == pytest.approx(4.3026527)
    signed, lengths = jnp.array([-4.31, 4.29, 4.31]), jnp.array([0.0, 4.29, 4.31])
    resolved = noise.resolve(signed, -signed, lengths, jnp.array([4.31, 18.5, 18.6]), signed)
    assert resolved.objective.tolist() == resolved.risk.tolist() == [True, False, True]
    assert resolved.output.tolist() == resolved.coupling.tolist() == [False, False, True]
    assert resolved.excess.tolist() == [False, False, True]


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
