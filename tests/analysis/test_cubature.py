import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, regression
from scipy.optimize import lsq_linear

import wgf
from wgf.analysis._cubature import _contributions, _factors, _fields, _in_pairs, _parts, _slopes, nearest_weights
from wgf.encoders import AbstractEncoder, Average, Pair, Perceptron
from wgf.measures import Gaussian, SignPairs, Staged, Whitened


class EvenNeuron(AbstractEncoder):
    """An encoder without a reflection."""

    def sample(self, key, shape):
        return jax.random.normal(key, shape)

    def __call__(self, particle, tokens):
        return particle**2 * tokens


def draw(seed, count=60, moments=5):
    """Rows of moments with a constant, masses, and the moments of a law nearby."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.normal(size=(count, moments)), np.ones((count, 1))], axis=1)
    masses = rng.uniform(0.5, 1.5, count)
    masses /= masses.sum()
    return rows, masses, rng


@pytest.mark.parametrize("size", [0.1, 0.8], ids=["all free", "some at zero"])
def test_nearest_weights_match_and_are_the_nearest(size):
    rows, masses, rng = draw(0)
    target = masses @ rows + np.append(size * rng.normal(size=5) / 2, 0.0)
    factors = nearest_weights(rows, masses, target)
    assert factors.min() >= 0
    assert (factors.min() == 0) == (size > 0.5), factors.min()
    np.testing.assert_allclose((masses * factors) @ rows, target, atol=bound(1e-10, 1e-5))
    # SciPy's bounded least squares with the constraints as heavy rows.
    heavy = 1e5
    scaled = np.concatenate([np.diag(np.sqrt(masses)), heavy * (rows * masses[:, None]).T])
    found = lsq_linear(scaled, np.concatenate([np.sqrt(masses), heavy * target]), bounds=(0, np.inf), tol=1e-14)
    excess = masses @ (factors - 1) ** 2 - masses @ (found.x - 1) ** 2
    assert -1e-6 < excess < 0.02 * (masses @ (found.x - 1) ** 2) + 1e-6, excess


def test_moments_out_of_reach_have_no_weights():
    rows, masses, _ = draw(1)
    assert nearest_weights(rows, masses, np.array([50.0, 0, 0, 0, 0, 1])) is None


def test_of_means_out_of_reach_the_first_components_are_preserved():
    """A feature that stands twice comes first. No weights give the other the mean 2, since it is at most 1."""
    twice, other = np.tile([1.0, -1.0], 20)[None], np.tile([1.0, 1.0, -1.0, -1.0], 10)[None]
    features, masses = np.stack([twice, twice, other], axis=-1), np.full((1, 40), 1 / 40)
    factors = _factors(features, masses, np.ones(1), np.array([0.5, 0.5, 2.0]), 1.0)
    assert factors.min() >= 0
    np.testing.assert_allclose(np.einsum("ij,ij,ijr->r", masses, factors, features), [0.5, 0.5, 0], atol=1e-12)
    np.testing.assert_allclose(np.sum(masses * factors), 1)


@pytest.fixture(scope="module")
def piloted():
    """A problem, its law, and a pilot flow."""
    key = jax.random.key(3)
    prompts = regression(key, batch=2, examples=2, dim=1)
    encoder = Perceptron(prompts.token_dim, jnp.tanh)
    objective = wgf.Objective(prompts, weight_decay=1e-2)
    law = Gaussian(encoder, 0.8, SignPairs())
    start = wgf.AveragedODE(encoder, law.staged(8, key))
    return objective, law, wgf.flow(objective, start, jnp.array([0.0, 1.0, 2.0]), rtol=1e-2)


@pytest.fixture(scope="module")
def reweighted(piloted):
    """A base, and its first particles with their weights."""
    objective, law, pilot = piloted
    base = law.staged(256, jax.random.key(512))
    return base, wgf.analysis.cubature(objective, pilot, base, 64, tied=2)


def mean(features, measure):
    """The features' mean over the measure, `[r]`."""
    return jnp.einsum("i,ij,ijr->r", measure.depth_weights, measure.weights, features)


def test_features_are_kept_exactly(piloted, reweighted):
    objective, _, pilot = piloted
    base, weighted = reweighted
    # Here every particle rides by its own slopes; the weights are of rides whose pairs share them in the first leg.
    features = _contributions(objective, pilot, base.particles, paired=False)
    assert _in_pairs(pilot.models.encoder, base.particles)
    assert features.shape == (8, 256, 2 * 2)  # At two τ, of two prompts.
    kept = features[:, :64]
    before = jnp.einsum("i,ijr->r", base.depth_weights, kept) / 64
    assert jnp.min(jnp.abs(before - mean(features, base))) > 1e-5
    np.testing.assert_allclose(mean(kept, weighted), mean(features, base), atol=bound(1e-12, 1e-5))


def test_features_are_what_particles_add_to_the_outputs(piloted):
    objective, _, pilot = piloted
    model = pilot.model_at(-1)
    measure = model.measure
    fields = _fields(objective, model)
    found = _parts(model.encoder, fields, measure.particles)
    slopes = _slopes(objective, model.encoder, fields, measure.particles)

    def outputs(weights):
        return objective.outputs(eqx.tree_at(lambda m: m.measure.weights, model, weights))

    # The loss is half the square of the residual, which so stands between outputs and loss.
    residuals = outputs(measure.weights) - objective.prompts.labels
    added = jax.jacobian(outputs)(measure.weights) / measure.depth_weights[None, :, None]
    exact = jnp.moveaxis(added * residuals[:, None, None], 0, -1)
    # The adjoint in depth is that of the limit, and not of its one step.
    assert jnp.linalg.norm(found - exact) < 0.1 * jnp.linalg.norm(exact)
    first_variation = objective.first_variation(model)
    for node, depth in enumerate(measure.depths):
        particles = jax.tree.map(lambda leaf, node=node: leaf[node], measure.particles)
        expected = first_variation.gradient(particles, depth)
        jax.tree.map(
            lambda s, e, node=node: np.testing.assert_allclose(s[node], e, atol=bound(1e-12, 1e-5)), slopes, expected
        )


@pytest.mark.parametrize("width", [2, 6, 8], ids=["less than a block", "whole blocks", "blocks and a rest"])
def test_contributions_do_not_depend_on_the_blocks_of_particles_and_prompts(piloted, width, monkeypatch):
    objective, law, pilot = piloted
    model, particles = pilot.model_at(-1), law.staged(width, jax.random.key(1)).particles
    fields = _fields(objective, model)

    def computed():
        return _parts(model.encoder, fields, particles), _slopes(objective, model.encoder, fields, particles)

    whole = computed()
    monkeypatch.setattr("wgf.analysis._cubature._BLOCK", 3)
    monkeypatch.setattr("wgf.analysis._cubature._PROMPTS", 1)
    blocks = computed()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=bound(1e-13, 1e-6)), whole, blocks)


def acting(encoder, particle, tokens, costates):
    """What a particle does to each prompt's loss, `[B]`."""
    return jnp.stack([jnp.sum(p * encoder(particle, t)) for t, p in zip(tokens, costates, strict=True)])


def first_variation(particle, objective, encoder, tokens, costates):
    """δQ/δρ at a particle, with decay."""
    squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(particle))
    loss = objective.prompts.weights @ acting(encoder, particle, tokens, costates)
    return loss + objective.weight_decay / 2 * squares


@pytest.mark.parametrize(("saves", "matched"), [(2, [1]), (3, [1, 2]), (4, [2, 3]), (5, [2, 4])])
def test_features_are_those_of_the_middle_and_the_last_save(piloted, saves, matched):
    """The same features of one particle after another, each by the encoder itself."""
    objective, law, pilot = piloted
    encoder = pilot.models.encoder
    pilot = wgf.flow(objective, pilot.model_at(0), jnp.linspace(0.0, 2.0, saves), rtol=1e-2)
    models = [pilot.model_at(k) for k in range(saves)]
    particles = law.staged(4, jax.random.key(7)).particles
    found = _contributions(objective, pilot, particles, paired=True)
    adjoints = [objective.adjoint(model) for model in models]
    for node in (0, 5):
        depth = models[0].measure.depths[node]
        tokens = [adjoint.tokens(depth) for adjoint in adjoints]
        costates = [adjoint.costates(depth) for adjoint in adjoints]
        for number in (0, 1):
            particle = jax.tree.map(lambda leaf, at=(node, number): leaf[at], particles)
            expected = []
            for k in range(saves):
                if k in matched:
                    expected.append(acting(encoder, particle, tokens[k], costates[k]))
                if k < saves - 1:
                    means = (tokens[k] + tokens[k + 1]) / 2, (costates[k] + costates[k + 1]) / 2
                    slope = jax.grad(first_variation)(particle, objective, encoder, *means)
                    particle = jax.tree.map(lambda x, s: x - 2 / (saves - 1) * s, particle, slope)
            np.testing.assert_allclose(found[node, number], jnp.concatenate(expected), atol=bound(1e-12, 1e-5))


def test_weights_are_a_law_shared_by_pairs(reweighted):
    weights = reweighted[1].weights
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=bound(1e-12, 1e-5))
    assert jnp.all(weights >= 0)
    assert jnp.max(jnp.abs(weights - 1 / 64)) > 1e-4
    np.testing.assert_array_equal(weights[:, ::2], weights[:, 1::2])


def test_particles_stay_what_they_were(reweighted):
    base, weighted = reweighted
    assert weighted.width == 64
    assert eqx.tree_equal(jax.tree.map(lambda leaf: leaf[:, :64], base.particles), weighted.particles)


def test_pairs_are_known_by_their_particles(piloted):
    _, law, _ = piloted
    particles = law.staged(4, jax.random.key(0)).particles
    assert _in_pairs(law.encoder, particles)
    assert not _in_pairs(law.encoder, jax.tree.map(lambda leaf: leaf[:, [0, 2, 1, 3]], particles))
    assert not _in_pairs(law.encoder, jax.tree.map(lambda leaf: leaf[:, :3], particles))
    assert not _in_pairs(EvenNeuron(), jnp.ones((8, 4)))
    assert not _in_pairs(Average(EvenNeuron(), law.encoder), Pair(jnp.ones((8, 4)), particles))


def test_a_base_kept_whole_keeps_its_weights(piloted):
    objective, law, pilot = piloted
    base = law.staged(32, jax.random.key(0))
    uneven = Staged(base.particles, jnp.tile(jnp.array([0.5, 0.5, 1.5, 1.5]) / 32, 8))
    weighted = wgf.analysis.cubature(objective, pilot, uneven, 32, tied=2)
    np.testing.assert_allclose(weighted.weights, uneven.weights, atol=bound(1e-12, 1e-5))


def test_other_nodes_than_the_pilots_are_refused(piloted):
    objective, law, pilot = piloted
    base = law.spectral(2, 4, jax.random.key(0))
    with pytest.raises(ValueError, match="`base` must have the pilot's depth nodes"):
        wgf.analysis.cubature(objective, pilot, base, 2)


@pytest.mark.parametrize(
    ("width", "message"),
    [
        (3, "`width` must be a multiple of `tied`, 2; got 3"),
        (6, "`width` must be at most the width of the base, 4; got 6"),
        (0, "`width` must be a whole number of at least 1; got 0"),
    ],
)
def test_widths_that_do_not_fit_are_refused(piloted, width, message):
    objective, law, pilot = piloted
    with pytest.raises(ValueError, match=message):
        wgf.analysis.cubature(objective, pilot, law.staged(4, jax.random.key(0)), width, tied=2)


def test_tracers_among_the_kept_are_refused(piloted):
    objective, law, pilot = piloted
    tracing = Staged(law.staged(4, jax.random.key(0)).particles, jnp.array([0.0, 0.4, 0.3, 0.3]))
    with pytest.raises(ValueError, match="`base` must have positive weights, and no tracers, where"):
        wgf.analysis.cubature(objective, pilot, tracing, 2)


@pytest.mark.slow
def test_the_cubature_errs_less_than_the_particles_it_reweights(piloted):
    objective, law, pilot = piloted
    encoder = pilot.models.encoder
    white = Gaussian(encoder, law.scale, Whitened(SignPairs()))

    def outputs(measure):
        return wgf.flow(objective, wgf.AveragedODE(encoder, measure), jnp.array([0.0, 2.0])).outputs[-1]

    errors = np.empty((4, 2))
    exact = np.mean([outputs(white.staged(2048, jax.random.key(100 + i))) for i in range(4)], axis=0)
    for seed in range(4):
        base = white.staged(1024, jax.random.key(50 + seed))
        plain = Staged(jax.tree.map(lambda leaf: leaf[:, :64], base.particles))
        weighted = wgf.analysis.cubature(objective, pilot, base, 64, tied=2)
        errors[seed] = [np.sqrt(np.mean((outputs(m) - exact) ** 2)) for m in (plain, weighted)]
    plain, better = np.sqrt(np.mean(errors**2, axis=0))
    assert better < plain / 1.5, errors
