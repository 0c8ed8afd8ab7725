"""The optimality certificate: closed forms, a planted bad stationary point, an unbounded case."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, bound, regression

import wgf
from wgf.analysis._insertion import insert
from wgf.measures import Layered, Spectral


@pytest.fixture(scope="module")
def prompts():
    return regression(jax.random.key(1))


def linear(prompts, weight_decay, key):
    encoder = Matrix(prompts.token_dim)
    particles = 0.3 * jax.random.normal(key, (2, 4, prompts.token_dim, prompts.token_dim))
    return wgf.Objective(prompts, weight_decay), wgf.AveragedODE(encoder, Spectral(particles), steps=4)


@pytest.fixture(scope="module")
def quadratic(prompts):
    """For h = W T, δQ/δρ = ⟨G, W⟩ + λ/2 ‖W‖² with G(t) = E[p Tᵀ]: its least value is −‖G‖²/(2λ), at W = −G/λ."""
    objective, model = linear(prompts, 0.2, jax.random.key(2))
    found = wgf.analysis.certificate(objective, model, key=jax.random.key(3), starts=4)
    adjoint = objective.adjoint(model)
    pairs = [(adjoint.costates(t), adjoint.tokens(t)) for t in model.measure.depths]
    g = jnp.stack([jnp.einsum("b,bin,bjn->ij", prompts.weights, p, t) for p, t in pairs])
    return model, found, g


def test_the_least_of_a_quadratic_is_its_closed_form(quadratic):
    _, found, g = quadratic
    np.testing.assert_allclose(found.least, -jnp.sum(g**2, axis=(1, 2)) / 0.4, rtol=bound(1e-7, 1e-4))
    np.testing.assert_allclose(found.particles, -g / 0.2, atol=1e-4)
    assert not found.at_boundary.any()


def test_the_mean_is_that_of_the_particles(quadratic):
    model, found, g = quadratic
    w = model.measure.particles
    expected = jnp.mean(jnp.einsum("tij,tmij->tm", g, w) + 0.1 * jnp.sum(w**2, axis=(2, 3)), axis=1)
    np.testing.assert_allclose(found.mean, expected, rtol=bound(1e-7, 1e-4))
    np.testing.assert_allclose(found.value, jnp.min(found.least - expected), rtol=1e-6)
    assert jnp.all(found.gap < -0.01)


def test_of_a_staged_limit_it_is_that_of_q_as_it_is_computed(prompts):
    """At the default depths; at depths of one's own, tokens and adjoint are interpolated."""
    encoder = Matrix(prompts.token_dim)
    particles = jax.random.normal(jax.random.key(6), (4, 3, prompts.token_dim, prompts.token_dim))
    solver = wgf.measures.ThreeEighths()
    model = wgf.AveragedODE(encoder, wgf.measures.Staged(particles, solver=solver))
    objective, options = wgf.Objective(prompts, 0.2), {"key": jax.random.key(0), "starts": 2, "max_steps": 4}
    own = wgf.analysis.certificate(objective, model, **options)
    other = wgf.analysis.certificate(objective, model, depths=model.measure.depths, **options)

    def mean(discrete):
        variation = objective.first_variation(model, discrete=discrete)
        return [
            jnp.mean(jnp.stack([variation(particle, depth) for particle in layer]))
            for layer, depth in zip(particles, model.measure.depths, strict=True)
        ]

    np.testing.assert_allclose(own.mean, mean(True), rtol=bound(1e-10, 1e-4))
    np.testing.assert_allclose(other.mean, mean(False), rtol=bound(1e-10, 1e-4))
    assert jnp.max(jnp.abs(own.mean - other.mean)) > 1e-2


def test_the_flow_to_the_minimum_brings_the_gap_to_zero(prompts):
    """Linear encoder: δQ/δρ is convex in θ, so the particles of a stationary law all sit at its minimum."""
    objective, model = linear(prompts, 0.5, jax.random.key(4))
    end = wgf.flow(objective, model, jnp.array([0.0, 40.0]), rtol=1e-6).model_at(-1)
    before, after = (
        wgf.analysis.certificate(objective, m, key=jax.random.key(5), starts=4).value for m in (model, end)
    )
    assert before < -1e-2
    assert -1e-6 < after < bound(1e-9, 1e-4)


def test_a_planted_stationary_point_is_exposed(prompts):
    """At θ = 0 every neuron w σ(vᵀT) of an odd σ is stationary; with labels to fit, it is not optimal."""
    encoder = wgf.encoders.Perceptron(prompts.token_dim, jnp.tanh)
    zeros = jax.tree.map(lambda leaf: jnp.zeros((2, 8, *leaf.shape)), encoder.sample(jax.random.key(0), ()))
    objective, model = wgf.Objective(prompts, 1e-3), wgf.Transformer(encoder, Layered(zeros))
    speed = wgf.measures.coordinates(wgf.velocity(objective, model))
    assert float(jnp.max(jnp.abs(speed))) < bound(1e-12, 1e-5)
    found = wgf.analysis.certificate(objective, model, key=jax.random.key(6))
    assert found.value < -0.1 * objective(model)
    np.testing.assert_allclose(found.mean, 0, atol=bound(1e-12, 1e-5))


def test_a_homogeneous_neuron_against_little_weight_decay_has_no_least(prompts):
    encoder = wgf.encoders.Perceptron(prompts.token_dim, jax.nn.relu, use_bias=False)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.5).layered(1, 8, jax.random.key(7)))
    objective = wgf.Objective(prompts, 1e-4)
    found = [
        wgf.analysis.certificate(objective, model, key=jax.random.key(8), depths=[0.0], radius=radius)
        for radius in (5.0, 50.0)
    ]
    assert all(c.at_boundary.all() for c in found)
    assert found[1].least[0] < 50 * found[0].least[0] < 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"starts": 1}, "`starts` must be a whole number of at least 2; got 1"),
        ({"max_steps": 0}, "`max_steps` must be a whole number of at least 1; got 0"),
        ({"depths": [0.5, 1.5]}, r"`depths` must lie in \[0, 1\], from the prompts to the output; got 1\.5"),
        ({"radius": 0.0}, r"`radius` must be positive; got 0\.0"),
        ({"radius": jnp.nan}, "`radius` must be finite"),
    ],
)
def test_bad_arguments_are_named(prompts, options, text):
    objective, model = linear(prompts, 0.2, jax.random.key(2))
    with pytest.raises(ValueError, match=text):
        wgf.analysis.certificate(objective, model, key=jax.random.key(0), **options)


def test_the_gap_is_also_a_share_of_the_objective(prompts):
    objective, model = linear(prompts, 0.2, jax.random.key(2))
    found = wgf.analysis.certificate(objective, model, key=jax.random.key(3), starts=4)
    np.testing.assert_allclose(found.objective, objective(model), rtol=bound(1e-12, 1e-6))
    np.testing.assert_allclose(found.relative_gap, found.value / objective(model), rtol=bound(1e-12, 1e-6))


def test_an_insertion_lowers_the_objective_as_the_gap_says(quadratic, prompts):
    """To first order Q falls by m times the mean over depth of the gap; here the nodes' weights are equal."""
    model, found, _ = quadratic
    first_order = -found.masses * jnp.sum(model.measure.depth_weights * found.gap)
    np.testing.assert_allclose(found.masses, [1e-3, 1e-2], rtol=1e-6)
    np.testing.assert_allclose(found.falls[0], first_order[0], rtol=bound(0.02, 0.03))
    assert 0 < found.falls[0] < found.falls[1] < first_order[1] * bound(1, 1.001)


@pytest.mark.parametrize("kind", ["layered", "staged", "grid"])
def test_an_insertion_keeps_the_mass_and_moves_the_law(kind):
    """(1 − m) ρ + m δ_θ has the mean (1 − m) E θ + m θ at every depth, up to half a cell on a grid."""
    law = wgf.measures.Gaussian(Matrix(1), 0.5)
    measure = {
        "layered": lambda: law.layered(3, 4, jax.random.key(0)),
        "staged": lambda: law.staged(4, jax.random.key(0)),
        "grid": lambda: law.eulerian(2, [40], -2.0, 2.0),
    }[kind]()
    model = (wgf.Transformer if kind == "layered" else wgf.AveragedODE)(Matrix(1), measure)
    depths, theta = jnp.array([0.0, 0.9]), jnp.array([[[1.0]], [[-1.5]]])
    after = insert(model, depths, theta, 0.1).measure
    np.testing.assert_allclose(after.weights.sum(axis=1), 1, rtol=1e-6)
    before = jnp.sum(measure.weights * measure.particles[..., 0, 0], axis=1)
    expected = 0.9 * before + 0.1 * jnp.where(measure.depths < 0.45, 1.0, -1.5)
    found = jnp.sum(after.weights * after.particles[..., 0, 0], axis=1)
    np.testing.assert_allclose(found, expected, atol=0.1 * 0.05 if kind == "grid" else 1e-6)


class TwoWells(wgf.encoders.AbstractEncoder):
    """g(T, θ) = e^(−(|θ| − 1)²) + 3 e^(−(|θ| − 8)²). Where more output is wanted, δQ/δρ is least at ±8."""

    def sample(self, key, shape):
        return jax.random.normal(key, shape)

    def __call__(self, particle, tokens):
        size = jnp.sqrt(particle**2 + 1e-12)
        return (jnp.exp(-((size - 1) ** 2)) + 3 * jnp.exp(-((size - 8) ** 2))) * jnp.ones_like(tokens)


def test_starts_of_several_scales_find_a_deeper_valley_far_away():
    """From the particles' own scale, 1, the search meets the near valley alone."""
    prompts = wgf.prompts.Prompts(jnp.zeros((1, 1, 2)), jnp.ones(1), label_row=0)
    model = wgf.Transformer(TwoWells(), Layered(jnp.linspace(-2, 2, 8)[None]))
    objective = wgf.Objective(prompts, weight_decay=1e-4)
    found = wgf.analysis.certificate(objective, model, key=jax.random.key(1), radius=20.0, starts=32)
    assert abs(abs(float(found.particles[0])) - 8) < 0.5
    assert not found.at_boundary.any()


def test_a_certificate_is_one_line(quadratic):
    _, found, _ = quadratic
    worst = int(jnp.argmin(found.gap))
    text = f"Certificate: gap {float(found.value):.3g} ({float(found.relative_gap):.2g} Q) at depth "
    assert repr(found).startswith(f"{text}{float(found.depths[worst]):.3g}, Q falls by ")
    assert "for mass 0.001, Q falls by" in repr(found)
    assert "boundary" not in repr(found)
    traced = repr(eqx.filter_eval_shape(lambda: found))
    assert traced.startswith("Certificate: float")
    assert "\n" not in repr(found) + traced


def test_a_line_says_where_the_search_met_its_boundary(quadratic):
    _, found, _ = quadratic
    flags = jnp.ones_like(found.at_boundary)
    text = repr(eqx.tree_at(lambda c: c.at_boundary, found, flags))
    assert text.endswith(
        f"boundary of the search, radius {float(found.radius):.4g}, at {len(flags)} of {len(flags)} depths"
    )
