"""The gap of two flows."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, bound, programs, regression

import wgf
from wgf.measures import Layered, coordinates
from wgf.transport import conditional_divergence

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
    np.testing.assert_allclose(
        gap.output, np.sqrt(np.mean((finite.outputs - limit.outputs) ** 2, 1)), rtol=bound(1e-12, 1e-5)
    )
    assert gap.coupling is None
    assert gap.sinkhorn.converged.all()


def test_tracers_give_the_coupling_distance_and_the_floor(flows):
    finite, _, traced = flows
    gap = wgf.gap(finite, traced)
    assert gap.coupling[0] == 0
    assert gap.sinkhorn.excess[0] == pytest.approx(0, abs=bound(1e-9, 1e-4))
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
    np.testing.assert_allclose(gap.noise.objective, replicates.objective.error, rtol=bound(0, 1e-6))
    np.testing.assert_allclose(gap.noise.risk, replicates.risk.error, rtol=bound(0, 1e-6))
    np.testing.assert_allclose(
        gap.noise.output, np.sqrt(np.mean(replicates.outputs.error**2, 1)), rtol=bound(1e-12, 1e-5)
    )
    np.testing.assert_array_equal(gap.noise.coupling, replicates.transport_error())
    np.testing.assert_allclose(gap.squared_output(), gap.output**2 - gap.noise.output**2, rtol=bound(1e-12, 1e-5))
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


def grown(solution, model):
    """A solution whose models are this one, larger at each τ."""
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3) if eqx.is_array(leaf) else leaf, model)
    factors = 1 + jnp.arange(3)[:, None, None] / 4

    def grow(measure):
        return jax.tree.map(lambda leaf: leaf * factors.reshape(-1, *[1] * (leaf.ndim - 1)), measure.particles)

    stacked = stacked.with_particles(grow(stacked.measure))
    stacked = stacked.with_tracer_particles(tuple(grow(measure) for measure in stacked.tracers))
    return eqx.tree_at(lambda s: s.models, solution, stacked)


def compared(kind, own, tracers, law):
    """What is compared by hand, `(points, weights)` each: pairs of the model's cloud, of the floor's, and the other."""

    def part(cloud, *slices):
        points, weights = (jnp.concatenate([array[:, s] for s in slices], axis=1) for array in cloud)
        return points, weights / weights.sum(axis=1, keepdims=True)

    first, rest = slice(0, 5), slice(5, None)
    if kind == "tracers":
        return [(own, tracers, law)]
    if kind == "parts":
        return [(part(own, first), part(law, first), part(law, rest))]
    if kind == "parts of a wider model":
        half, rest = slice(0, 20), slice(20, None)
        return [(part(law, half), part(own, half), part(own, rest))]
    starts = (0, 8, 16)
    return [(part(own, first), part(law, slice(s, s + 5)), part(law, slice(s + 8, None), slice(0, s))) for s in starts]


@pytest.mark.parametrize(
    ("kind", "spread"),
    [
        ("tracers", False),
        ("tracers", True),
        ("replicates", False),
        ("parts", False),
        ("parts of a wider model", False),
    ],
)
def test_clouds_that_are_filled_up_have_the_divergence_of_bare_ones(flows, replicated, kind, spread, key):
    """Three layers of five particles, of which one has no mass, filled up to eight and to the limit's width."""
    width = 40 if kind == "parts of a wider model" else 5
    weights = jnp.arange(width) / jnp.sum(jnp.arange(width))
    law, encoder = wgf.measures.Gaussian(flows[0].models.encoder, 0.7), flows[0].models.encoder
    particles = law.layered(3, width, key).particles
    model = wgf.Transformer(encoder, Layered(particles, weights if kind == "tracers" else None))
    finite = grown(flows[0], model)
    twin = wgf.Transformer(encoder, Layered(jax.tree.map(lambda leaf: 1.1 * leaf, particles), model.measure.weights))
    if kind == "replicates":
        limit = eqx.tree_at(lambda r: r.pooled.models.tracers, replicated[0], ())
    else:
        start = flows[1].model_at(0)
        limit = grown(flows[1], start.with_tracers(twin) if kind == "tracers" else start)
    mesh = wgf.sharding.mesh(devices=jax.devices()[:1]) if spread else None
    gap = wgf.gap(finite, limit, epsilon=2.0, mesh=mesh)
    pooled = limit.pooled if kind == "replicates" else limit
    potentials, depth_weights, bare = {}, jnp.full(3, 1 / 3), eqx.filter_jit(conditional_divergence)
    for save in range(3):
        measure, limits = finite.model_at(save).measure, pooled.model_at(save)
        own = coordinates(measure.particles), measure.weights
        tracers = (coordinates(limits.tracers[0].particles), own[1]) if limits.tracers else None
        points, masses = jax.vmap(limits.measure.at)(measure.depths)
        found = []
        for number, (*pair, (y, b)) in enumerate(compared(kind, own, tracers, (coordinates(points), masses))):
            for name, (x, a) in zip(("value", "floor"), pair, strict=True):
                options = {"epsilon": 2.0, "x_weights": a, "y_weights": b, "initial": potentials.get((number, name))}
                divergence = bare(x, y, depth_weights, **options)
                potentials[number, name] = divergence.potentials
                found.append((divergence.value, divergence.converged))
        values, converged = np.array(found).T.reshape(2, -1, 2)
        np.testing.assert_allclose(gap.sinkhorn.value[save], values[:, 0].mean(), rtol=bound(1e-9, 1e-4))
        np.testing.assert_allclose(gap.sinkhorn.floor[save], values[:, 1].mean(), rtol=bound(1e-9, 1e-4))
        assert converged.all()
        assert gap.sinkhorn.converged[save]


def test_models_of_all_sizes_share_the_program_of_their_transports(flows):
    law, encoder = wgf.measures.Gaussian(flows[0].models.encoder, 0.7), flows[0].models.encoder
    with programs() as compiled:
        for depth, width in ((2, 4), (3, 6), (9, 12), (17, 24)):
            model = wgf.Transformer(encoder, law.layered(depth, width, jax.random.key(depth)))
            # So many depths are compared in no other test, whose program would do here too.
            gap = wgf.gap(grown(flows[0], model), grown(flows[1], flows[1].model_at(0)), most_depths=7)
            assert gap.sinkhorn.converged.all()
    assert compiled.count("jit(_transports)") == 1, compiled


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
    with pytest.raises(ValueError, match="`limit` must carry only one set of tracers of depth and width"):
        wgf.gap(finite, twice)
