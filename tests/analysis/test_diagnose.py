"""Planted failures are named, each by its own signature; healthy runs are passed in silence."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers import Matrix, averaged, regression

import wgf
from wgf.measures import Layered

TAUS = jnp.array([0.0, 5.0, 10.0, 20.0, 40.0])
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def prompts():
    return regression(jax.random.key(1), batch=4)


def signatures(*args, **kwargs):
    return [finding.signature for finding in wgf.analysis.diagnose(*args, key=KEY, **kwargs)]


@pytest.fixture(scope="module")
def healthy(prompts):
    encoder = averaged(prompts.token_dim)
    objective = wgf.Objective(prompts, 1e-4)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 1.0).layered(2, 32, jax.random.key(2)))
    return objective, wgf.flow(objective, model, TAUS)


def test_a_healthy_run_is_passed_in_silence(healthy):
    objective, solution = healthy
    assert solution.risk[-1] < 0.05 * solution.risk[0]
    assert signatures(objective, solution) == []


def gaps(solution, output):
    """A gap of the given sizes."""
    gap = wgf.gap(solution, solution)
    return eqx.tree_at(lambda g: g.output, gap, jnp.asarray(output))


def test_a_growing_gap_is_named(healthy):
    objective, solution = healthy
    steady, growing = (gaps(solution, g) for g in ([0, 1e-3, 2e-3, 3e-3, 4e-3], [0, 1e-3, 2e-3, 4e-3, 8e-3]))
    assert signatures(objective, solution, gap=steady) == []
    assert signatures(objective, solution, gap=growing) == ["growing gap: width too small for the depth"]
    loud, soft = (wgf.analysis.Noise(8, *(jnp.full(5, size),) * 7) for size in (8e-3, 1e-3))
    noisy, clear = (eqx.tree_at(lambda g: g.noise, growing, n, is_leaf=lambda x: x is None) for n in (loud, soft))
    assert signatures(objective, solution, gap=noisy) == []
    assert signatures(objective, solution, gap=clear) == ["growing gap: width too small for the depth"]


@pytest.mark.slow
def test_too_much_weight_decay_is_named(prompts):
    encoder = averaged(prompts.token_dim)
    objective = wgf.Objective(prompts, 0.3)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.3).layered(1, 8, jax.random.key(2)))
    solution = wgf.flow(objective, model, TAUS)
    assert signatures(objective, solution) == ["plateau: weight decay too large"]


@pytest.mark.heavy
def test_a_bad_stationary_point_is_named(prompts):
    encoder = wgf.encoders.Perceptron(prompts.token_dim, jnp.tanh)
    zeros = jax.tree.map(lambda leaf: jnp.zeros((1, 4, *leaf.shape)), encoder.sample(KEY, ()))
    objective = wgf.Objective(prompts, 1e-4)
    solution = wgf.flow(objective, wgf.Transformer(encoder, Layered(zeros)), TAUS)
    assert signatures(objective, solution)[0] == "plateau: stationary but not optimal"


@pytest.fixture(scope="module")
def linear(prompts):
    encoder = Matrix(prompts.token_dim)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.3).layered(1, 8, jax.random.key(2)))
    return wgf.Objective(prompts, 1e-4), model


def test_steps_too_large_are_named(linear):
    objective, model = linear
    euler = {"solver": diffrax.Euler(), "controller": diffrax.ConstantStepSize(), "throw": False}
    for step in (2.5, 10.0):  # the first runs off the flow, the second to infinity
        solution = wgf.flow(objective, model, TAUS, dt0=step, **euler)
        assert signatures(objective, solution) == ["diverged: tolerance too loose"], (step, solution.objective)


class Gain(wgf.objective.AbstractLoss):
    """The loss −output: without bound below, but for the weight decay."""

    def __call__(self, outputs, labels):
        return -outputs

    def check(self, outputs, labels):
        pass


def test_particles_that_run_away_are_named(prompts):
    encoder = Matrix(prompts.token_dim)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.3).layered(6, 4, jax.random.key(2)))
    objective = wgf.Objective(prompts, 1e-4, loss=Gain())
    solution = wgf.flow(objective, model, jnp.linspace(0.0, 20.0, 81), max_steps=200, throw=False)
    assert signatures(objective, solution) == ["diverged: weight decay too weak"]


def test_a_run_out_of_steps_is_named(linear):
    objective, model = linear
    finding, *more = wgf.analysis.diagnose(
        objective, wgf.flow(objective, model, TAUS, max_steps=3, throw=False), key=KEY
    )
    assert finding.signature == "ended early"
    assert "Increase `max_steps`" in finding.advice
    assert not more


def test_an_encoder_that_cannot_tell_the_prompts_apart_is_named(prompts):
    """A perceptron with the identity sees one token alone: at most D prompts can be told apart at the query."""
    prompts = regression(jax.random.key(1), batch=12)
    encoder = wgf.encoders.Perceptron(prompts.token_dim, lambda x: x, use_bias=False)
    objective = wgf.Objective(prompts, 1e-5)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.5).layered(1, 8, jax.random.key(2)))
    assert "assumption: prompts not distinguished" in signatures(objective, wgf.flow(objective, model, TAUS))


class Bounded(wgf.encoders.AbstractEncoder):
    """tanh(W T): nothing in it is homogeneous."""

    token_dim: int

    def sample(self, key, shape):
        return jax.random.normal(key, (*shape, self.token_dim, self.token_dim))

    def __call__(self, particle, tokens):
        return jnp.tanh(particle @ tokens)


def test_an_encoder_without_homogeneity_is_named(prompts):
    encoder = Bounded(prompts.token_dim)
    objective = wgf.Objective(prompts, 0.5)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.5).layered(1, 8, jax.random.key(2)))
    assert "assumption: no partial homogeneity" in signatures(objective, wgf.flow(objective, model, TAUS))
