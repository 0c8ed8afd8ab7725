"""The gap of two flows."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, bound, programs, regression
from scipy.optimize import linear_sum_assignment

import wgf
from wgf.measures import Layered, coordinates
from wgf.transport import conditional_divergence

TAUS = [0.0, 2.0, 4.0]


@pytest.fixture(scope="module")
def fresh():
    """Flows of a finite model and its limit with fresh particles in both, and the model's own in the limit as well."""
    key = jax.random.key(3)
    prompts = regression(key)
    encoder = averaged(prompts.token_dim)
    objective, law = wgf.Objective(prompts, 1e-2), wgf.measures.Gaussian(encoder, 0.7)
    particles = law.layered(4, 12, jax.random.key(6))
    finite = wgf.Transformer(encoder, law.layered(3, 8, key)).with_tracers(particles)
    limit = wgf.AveragedODE(encoder, law.spectral(2, 24, jax.random.key(4)), steps=2).with_tracers(finite, particles)
    return wgf.flow(objective, finite, TAUS), wgf.flow(objective, limit, TAUS)


@pytest.fixture(scope="module")
def flows(fresh):
    """The same flows without tracers, and that of the limit with those of the finite model alone."""

    def keep(solution, *tracers):
        return eqx.tree_at(lambda s: s.models.tracers, solution, tracers)

    finite, limit = fresh
    return keep(finite), keep(limit), keep(limit, limit.models.tracers[0])


@pytest.mark.heavy
def test_gaps_are_differences(flows):
    finite, limit, _ = flows
    gap = wgf.gap(finite, limit, unpaired=True)
    np.testing.assert_array_equal(gap.objective, finite.objective - limit.objective)
    np.testing.assert_array_equal(gap.risk, finite.risk - limit.risk)
    np.testing.assert_allclose(
        gap.output, np.sqrt(np.mean((finite.outputs - limit.outputs) ** 2, 1)), rtol=bound(1e-12, 1e-5)
    )
    # Nothing of the one starts where something of the other does.
    assert gap.distances is gap.gelbrich is gap.sinkhorn is gap.coupling is None
    assert gap.unpaired.converged.all()


def by_hand(own, other, epsilon):
    """The three distances of two clouds `[depth, n, P]` of equal weights, depths of equal weights too."""
    bures = [float(wgf.transport.gelbrich_distance(x, y)) ** 2 for x, y in zip(own, other, strict=True)]
    squares = [
        float(wgf.transport.sinkhorn_divergence(x, y, epsilon=epsilon, threshold=1e-4).value)
        for x, y in zip(own, other, strict=True)
    ]
    coupling = np.mean(np.sum((own - other) ** 2, axis=-1))
    return np.sqrt([np.mean(bures), np.mean(squares), coupling])


def ends(measure):
    return coordinates(jax.tree.map(lambda leaf: leaf[-1], measure.particles))


@pytest.mark.heavy
def test_own_particles_are_compared_with_their_tracers(flows):
    finite, _, traced = flows
    gap = wgf.gap(finite, traced, unpaired=True)
    assert gap.gelbrich[0] == gap.sinkhorn[0] == gap.coupling[0] == 0
    expected = by_hand(ends(finite.models.measure), ends(traced.models.tracers[0]), gap.distances.epsilon[-1])
    found = [gap.gelbrich[-1], gap.sinkhorn[-1], gap.coupling[-1]]
    np.testing.assert_allclose(found, expected, rtol=bound(1e-5, 1e-2))
    assert gap.distances.converged.all()
    assert gap.unpaired.excess[0] == pytest.approx(0, abs=bound(1e-9, 1e-4))


@pytest.mark.heavy
def test_fresh_particles_come_before_own_ones(fresh):
    finite, limit = fresh
    gap = wgf.gap(finite, limit)
    expected = by_hand(ends(finite.models.tracers[0]), ends(limit.models.tracers[1]), gap.distances.epsilon[-1])
    found = [gap.gelbrich[-1], gap.sinkhorn[-1], gap.coupling[-1]]
    np.testing.assert_allclose(found, expected, rtol=bound(1e-5, 1e-2))


@pytest.mark.heavy
def test_the_bounds_hold_the_wasserstein_distance_between_them(fresh):
    """The exact distance at each depth, by SciPy's assignment."""
    finite, limit = fresh
    gap = wgf.gap(finite, limit)
    own, other = (np.asarray(ends(solution.models.tracers[i])) for solution, i in ((finite, 0), (limit, 1)))
    squares = []
    for x, y in zip(own, other, strict=True):
        costs = np.sum((x[:, None] - y[None]) ** 2, axis=-1)
        squares.append(costs[linear_sum_assignment(costs)].mean())
    exact, slack = np.sqrt(np.mean(squares)), 1 + bound(1e-9, 1e-5)
    assert 0.5 * exact < gap.gelbrich[-1] <= slack * exact
    assert exact <= slack * gap.coupling[-1] < 2 * exact
    # At a small epsilon the Sinkhorn distance is that one, too.
    small = wgf.gap(finite, limit, epsilon=0.05)
    assert small.sinkhorn[-1] == pytest.approx(exact, rel=0.1)


@pytest.mark.heavy
def test_the_divergence_is_compared_at_few_depths(fresh):
    finite, limit = fresh
    few, all_depths = wgf.gap(finite, limit, most_depths=2), wgf.gap(finite, limit)
    own, other = ends(finite.models.tracers[0]), ends(limit.models.tracers[1])
    rows = np.array([0, 3])
    expected = by_hand(own[rows], other[rows], few.distances.epsilon[-1])
    np.testing.assert_allclose(few.sinkhorn[-1], expected[1], rtol=bound(1e-5, 1e-2))
    np.testing.assert_array_equal(few.coupling, all_depths.coupling)
    np.testing.assert_array_equal(few.gelbrich, all_depths.gelbrich)


@pytest.mark.heavy
def test_a_solution_has_no_gap_to_itself(flows):
    gap = wgf.gap(flows[0], flows[0])
    assert np.abs(gap.output).max() == 0
    assert np.abs(gap.risk).max() == 0


@pytest.mark.heavy
def test_epsilon_is_one_for_all_times(flows):
    given = wgf.gap(flows[0], flows[2], epsilon=7.0)
    chosen = wgf.gap(flows[0], flows[2])
    np.testing.assert_array_equal(given.distances.epsilon, 7.0)
    assert len(set(chosen.distances.epsilon.tolist())) == 1


@pytest.fixture(scope="module")
def replicated(flows):
    """The gaps of the finite model to a limit of three replicates, without tracers and with."""
    finite = flows[0]
    objective = wgf.Objective(regression(jax.random.key(3)), 1e-2)
    law, encoder = wgf.measures.Gaussian(finite.models.encoder, 0.7), finite.models.encoder
    limits = [wgf.AveragedODE(encoder, law.spectral(2, 8, k), steps=2) for k in jax.random.split(jax.random.key(5), 3)]
    replicates = wgf.flow_replicates(objective, limits, TAUS, tracers=[finite.model_at(0)])
    bare = eqx.tree_at(lambda r: r.pooled.models.tracers, replicates, ())
    return replicates, wgf.gap(finite, bare, unpaired=True), wgf.gap(finite, replicates, unpaired=True)


@pytest.mark.heavy
def test_a_single_solution_does_not_know_its_noise(flows):
    gap = wgf.gap(flows[0], flows[1])
    assert gap.noise is None
    assert gap.resolved is None
    np.testing.assert_array_equal(gap.squared_output(), gap.output**2)


@pytest.mark.heavy
def test_replicates_are_compared_by_their_pooled_solution(flows, replicated):
    replicates, _, gap = replicated
    plain = wgf.gap(flows[0], replicates.pooled, unpaired=True)
    for name in ("objective", "risk", "output", "gelbrich", "coupling"):
        np.testing.assert_array_equal(getattr(gap, name), getattr(plain, name))
    np.testing.assert_array_equal(gap.unpaired.excess, plain.unpaired.excess)


@pytest.mark.heavy
def test_the_noise_is_the_error_of_the_pooled_solution(flows, replicated):
    replicates, _, gap = replicated
    np.testing.assert_allclose(gap.noise.objective, replicates.objective.error, rtol=bound(0, 1e-6))
    np.testing.assert_allclose(gap.noise.risk, replicates.risk.error, rtol=bound(0, 1e-6))
    np.testing.assert_allclose(
        gap.noise.output, np.sqrt(np.mean(replicates.outputs.error**2, 1)), rtol=bound(1e-12, 1e-5)
    )
    np.testing.assert_allclose(gap.noise.coupling, replicates.transport_error(), rtol=bound(1e-12, 1e-5))
    np.testing.assert_allclose(gap.squared_output(), gap.output**2 - gap.noise.output**2, rtol=bound(1e-12, 1e-5))


@pytest.mark.heavy
def test_the_noise_of_distances_is_that_of_replicates_in_two_fields(replicated):
    """Each replicate's particles as its own field moves them and as the pooled field does, one by one."""
    replicates, _, gap = replicated
    pooled = ends(replicates.pooled.models.measure)
    members = jax.vmap(coordinates)(jax.tree.map(lambda leaf: leaf[:, -1], replicates.members.models.measure.particles))
    epsilon = gap.distances.epsilon[-1]
    squares = [by_hand(members[r], pooled[:, 8 * r : 8 * r + 8], epsilon) ** 2 for r in range(3)]
    found = [gap.noise.gelbrich[-1], gap.noise.sinkhorn[-1], gap.noise.coupling[-1]]
    np.testing.assert_allclose(found, np.sqrt(np.mean(squares, axis=0) / 2), rtol=bound(1e-5, 1e-2))
    assert gap.noise.epsilon[-1] == epsilon


@pytest.mark.heavy
def test_the_noise_can_be_computed_once(flows, replicated):
    replicates = replicated[0]
    noise = wgf.analysis.noise(replicates, epsilon=5.0)
    given = wgf.gap(flows[0], replicates, noise=noise)
    assert given.noise is noise
    np.testing.assert_array_equal(given.distances.epsilon, 5.0)
    again = wgf.gap(flows[0], replicates, epsilon=5.0)
    np.testing.assert_allclose(again.noise.sinkhorn, noise.sinkhorn, rtol=bound(1e-12, 1e-5))
    np.testing.assert_array_equal(given.resolved.sinkhorn, given.sinkhorn > noise.factor * noise.sinkhorn)


@pytest.mark.heavy
def test_without_tracers_each_replicate_serves_as_the_floor(flows, replicated):
    """The floors one by one: each replicate's cloud against all the others'."""
    _, gap, _ = replicated
    models = replicated[0].pooled.model_at(-1)
    law, _ = jax.vmap(models.measure.at)(jnp.arange(3) / 3)
    cloud = wgf.measures.coordinates(law)
    floors = []
    for r in range(3):
        part, rest = cloud[:, 8 * r : 8 * r + 8], jnp.delete(cloud, slice(8 * r, 8 * r + 8), axis=1)
        epsilon = gap.unpaired.epsilon[-1]
        floors += [wgf.transport.conditional_divergence(part, rest, jnp.full(3, 1 / 3), epsilon=epsilon).value]
    np.testing.assert_allclose(gap.unpaired.floor[-1], np.mean(floors), rtol=1e-6)
    assert gap.distances is None
    assert gap.resolved.gelbrich is gap.resolved.sinkhorn is gap.resolved.coupling is None


def grown(solution, model):
    """A solution whose models are this one, larger at each τ, and whose tracers grow faster."""
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3) if eqx.is_array(leaf) else leaf, model)

    def grow(measure, rate):
        factors = 1 + rate * jnp.arange(3.0)
        return jax.tree.map(lambda leaf: leaf * factors.reshape(-1, *[1] * (leaf.ndim - 1)), measure.particles)

    stacked = stacked.with_particles(grow(stacked.measure, 0.25))
    stacked = stacked.with_tracer_particles(tuple(grow(measure, 0.35) for measure in stacked.tracers))
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


@pytest.mark.heavy
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
    if kind == "replicates":
        limit = eqx.tree_at(lambda r: r.pooled.models.tracers, replicated[0], ())
    else:
        start = flows[1].model_at(0)
        limit = grown(flows[1], start.with_tracers(model) if kind == "tracers" else start)
    mesh = wgf.sharding.mesh(devices=jax.devices()[:1]) if spread else None
    gap = wgf.gap(finite, limit, epsilon=2.0, unpaired=True, mesh=mesh)
    pooled = limit.pooled if kind == "replicates" else limit
    potentials, depth_weights, bare = {}, jnp.full(3, 1 / 3), eqx.filter_jit(conditional_divergence)
    for save in range(3):
        measure, limits = finite.model_at(save).measure, pooled.model_at(save)
        own = coordinates(measure.particles), measure.weights
        tracers = (coordinates(limits.tracers[0].particles), own[1]) if limits.tracers else None
        points, masses = jax.vmap(limits.measure.at)(measure.depths)
        found = []
        for number, (*pair, (y, b)) in enumerate(compared(kind, own, tracers, (coordinates(points), masses))):
            for name, cloud in zip(("value", "floor"), pair, strict=True):
                assert cloud is not None
                x, a = cloud
                options = {"epsilon": 2.0, "x_weights": a, "y_weights": b, "initial": potentials.get((number, name))}
                divergence = bare(x, y, depth_weights, **options)
                potentials[number, name] = divergence.potentials
                found.append((divergence.value, divergence.converged))
        values, converged = np.array(found).T.reshape(2, -1, 2)
        np.testing.assert_allclose(gap.unpaired.value[save], values[:, 0].mean(), rtol=bound(1e-9, 1e-4))
        np.testing.assert_allclose(gap.unpaired.floor[save], values[:, 1].mean(), rtol=bound(1e-9, 1e-4))
        assert converged.all()
        assert gap.unpaired.converged[save]


@pytest.mark.heavy
def test_models_of_all_sizes_share_the_program_of_their_transports(flows):
    law, encoder = wgf.measures.Gaussian(flows[0].models.encoder, 0.7), flows[0].models.encoder
    with programs() as compiled:
        for depth, width in ((2, 4), (3, 6), (9, 12), (17, 24)):
            model = wgf.Transformer(encoder, law.layered(depth, width, jax.random.key(depth)))
            # So many depths are compared in no other test, whose program would do here too.
            gap = wgf.gap(grown(flows[0], model), grown(flows[1], flows[1].model_at(0)), most_depths=7, unpaired=True)
            assert gap.unpaired.converged.all()
    assert compiled.count("jit(_transports)") == 1, compiled


@pytest.mark.heavy
def test_models_of_all_sizes_share_the_program_of_their_distances(fresh):
    finite, limit = fresh
    law, encoder = wgf.measures.Gaussian(finite.models.encoder, 0.7), finite.models.encoder
    particles = law.layered(5, 6, jax.random.key(8))
    with programs() as compiled:
        for depth, width in ((2, 4), (3, 6), (9, 12)):
            model = wgf.Transformer(encoder, law.layered(depth, width, jax.random.key(depth))).with_tracers(particles)
            gap = wgf.gap(grown(finite, model), grown(limit, limit.model_at(0).with_tracers(particles)))
            assert gap.coupling[0] == 0
    assert compiled.count("jit(distances)") == 1, compiled


def test_gaps_are_resolved_above_students_quantile_of_the_noise():
    noise = wgf.analysis.Noise(3, *(jnp.array([1.0, 1.0, 1.0]) for _ in range(7)))
    assert noise.factor == pytest.approx(4.3026527)
    for name in ("objective", "risk", "output", "gelbrich", "sinkhorn", "coupling"):
        assert noise.resolves(name, jnp.array([-4.31, 4.29, 4.31])).tolist() == [True, False, True]


@pytest.mark.heavy
def test_what_cannot_be_compared_is_refused(flows, unchecked):
    finite, limit, _ = flows
    later = eqx.tree_at(lambda s: s.taus, limit, limit.taus + 1)
    with pytest.raises(ValueError, match="`limit` must be solved at the taus"):
        wgf.gap(finite, later)
    fewer = eqx.tree_at(lambda s: s.outputs, limit, limit.outputs[:, :2])
    with pytest.raises(ValueError, match="`limit` must have outputs on the prompts"):
        wgf.gap(finite, fewer)
    with pytest.raises(ValueError, match="`most_depths` must be a whole number"):
        wgf.gap(finite, limit, most_depths=0)
    for noise in (1.0, limit):
        with pytest.raises(ValueError, match="`noise` must be the noise of the limit"):
            wgf.gap(finite, limit, noise=noise)
    with pytest.raises(ValueError, match=r"`replicates` must be a solution of wgf\.flow_replicates"):
        wgf.analysis.noise(limit)


@pytest.mark.heavy
def test_tracers_with_other_starts_are_no_pairs(flows, fresh):
    finite, limit = fresh
    moved = eqx.tree_at(lambda s: s.models.tracers, limit, replace_fn=lambda t: jax.tree.map(lambda x: x + 1, t))
    with pytest.raises(ValueError, match=r"must carry the same tracers; got .* \(4, 12\) with different starts"):
        wgf.gap(finite, moved)
    # A model of the size of the tracers that the limit carries, but not theirs.
    stranger = eqx.tree_at(lambda s: s.models.measure, flows[0], replace_fn=lambda m: jax.tree.map(lambda x: x + 1, m))
    assert wgf.gap(stranger, flows[2]).distances is None


@pytest.mark.heavy
def test_a_gap_in_a_program_of_its_own(fresh):
    finite, limit = fresh
    expected = wgf.gap(finite, limit)
    outputs = jax.jit(lambda epsilon: wgf.gap(finite, limit, epsilon=epsilon).sinkhorn)(expected.distances.epsilon[0])
    np.testing.assert_allclose(outputs, expected.sinkhorn, rtol=bound(1e-9, 1e-4), atol=bound(1e-12, 1e-4))


@pytest.mark.heavy
def test_a_gap_prints_in_one_line(flows, replicated):
    bare = wgf.gap(flows[0], flows[1])
    assert str(bare).startswith("Gap: 3 τ from 0 to 4, at the last τ objective ")
    assert str(bare).endswith(f", output {bare.output[-1]:.3g}")
    gap = replicated[2]
    assert str(gap).endswith(f", coupling {gap.coupling[-1]:.3g}, noise of 3 replicates")
    assert str(gap.noise).startswith(f"Noise: 3 replicates, at the last τ objective {gap.noise.objective[-1]:.3g}, ")


@pytest.mark.heavy
def test_a_notebook_shows_the_gaps_with_their_noise(flows, replicated):
    bare, gap = wgf.gap(flows[0], flows[1])._repr_html_(), replicated[2]
    assert "<th>τ</th><th>objective</th><th>risk</th><th>output</th></tr>" in bare
    assert "±" not in bare
    gap = eqx.tree_at(lambda g: g.output, gap, gap.output.at[-1].set(100.0))
    html = gap._repr_html_()
    assert "<th>output</th><th>gelbrich</th><th>sinkhorn</th><th>coupling</th></tr>" in html
    assert f"<td><b>100 ± {gap.noise.output[-1]:.2g}</b></td>" in html
    assert "Bold: the gap exceeds the noise with 95 % confidence." in html
    text = gap.summary()
    assert f"100 ± {gap.noise.output[-1]:.2g} *" in text
    assert text.endswith("\n±: noise of the limit. *: the gap exceeds the noise with 95 % confidence.")
    assert "±" not in wgf.gap(flows[0], flows[1]).summary()


@pytest.mark.heavy
def test_a_gap_prints_whatever_its_leaves_are(replicated):
    gap = replicated[2]
    others = [jax.tree.map(lambda leaf, x=x: x, gap) for x in (None, object())]
    for other in (eqx.filter_eval_shape(lambda g: g, gap), *others):
        assert repr(other).startswith("Gap: τ ")
        assert repr(other.noise).startswith("Noise: 3 replicates, ")
        assert other._repr_html_().startswith("<pre>Gap: ")


@pytest.mark.heavy
def test_the_structure_of_a_gap_is_known_without_computing_it(flows):
    """As `wgf.load` needs it."""
    gap = wgf.gap(flows[0], flows[2])
    with programs() as compiled:
        like = eqx.filter_eval_shape(wgf.gap, flows[0], flows[2])
    assert not [name for name in compiled if "distances" in name]
    assert jax.tree.structure(like) == jax.tree.structure(gap)
    assert [leaf.shape for leaf in jax.tree.leaves(like)] == [leaf.shape for leaf in jax.tree.leaves(gap)]
