"""The library as a part of other programs: one piece in someone's own model, solve, loop or `vmap`."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import bound, regression

import wgf

KEYS = jax.random.split(jax.random.key(11), 4)
TAUS = [0.0, 0.4, 1.0]


@pytest.fixture(scope="module")
def problem():
    prompts = regression(KEYS[0], batch=4, examples=3)
    encoder = wgf.encoders.SoftmaxAttention(prompts.token_dim, key_dim=2)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.5).layered(2, 3, KEYS[1]))
    return wgf.Objective(prompts, 1e-2), model


class Own(eqx.Module):
    """A user's network: an embedding, one head of this library's attention, a read-out."""

    embed: eqx.nn.Linear
    attention: wgf.encoders.SoftmaxAttention
    head: wgf.encoders.Head
    readout: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.embed = eqx.nn.Linear(2, 6, key=keys[0])
        self.attention = wgf.encoders.SoftmaxAttention(6, key_dim=3)
        self.head = self.attention.sample(keys[1], ())
        self.readout = eqx.nn.Linear(6, 1, key=keys[2])

    def __call__(self, series):
        tokens = jax.vmap(self.embed)(series).T
        tokens = tokens + self.attention(self.head, tokens)
        return self.readout(tokens[:, -1])[0]


def test_an_encoder_in_a_model_of_ones_own_learns():
    series = jax.random.normal(KEYS[0], (64, 5, 2))
    labels = series[:, :, 0].mean(axis=1)
    optimiser = optax.adam(1e-2)

    @eqx.filter_value_and_grad
    def loss(model):
        return jnp.mean((jax.vmap(model)(series) - labels) ** 2)

    @eqx.filter_jit
    def step(model, state):
        value, slope = loss(model)
        updates, state = optimiser.update(slope, state)
        return eqx.apply_updates(model, updates), state, value

    model = Own(KEYS[1])
    state, losses = optimiser.init(eqx.filter(model, eqx.is_inexact_array)), []
    for _ in range(200):
        model, state, value = step(model, state)
        losses.append(float(value))
    assert losses[-1] < 0.1 * losses[0]


def test_the_velocity_in_a_solve_of_ones_own_is_the_flow(problem):
    objective, model = problem

    def field(tau, particles, args):
        return wgf.velocity(objective, model.with_particles(particles))

    solved = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Dopri8(),
        0.0,
        1.0,
        0.05,
        model.measure.particles,
        saveat=diffrax.SaveAt(ts=TAUS),
        stepsize_controller=diffrax.PIDController(bound(1e-9, 1e-5), bound(1e-11, 1e-7)),
    )
    solution = wgf.flow(objective, model, TAUS, rtol=bound(1e-9, 1e-5), atol=bound(1e-11, 1e-7))
    for own, ours in zip(jax.tree.leaves(solved.ys), jax.tree.leaves(solution.models.measure.particles), strict=True):
        np.testing.assert_allclose(ours, own, rtol=0, atol=bound(1e-8, 1e-4))


def test_the_first_variation_in_a_loop_of_ones_own_goes_down_as_tracers_do(problem):
    objective, model = problem
    particle = jax.tree.map(lambda leaf: leaf[1, 2], model.measure.particles)
    variation = jax.jit(jax.value_and_grad(lambda p: objective.first_variation(model)(p, 0.75)))
    values = []
    for _ in range(5):
        value, slope = variation(particle)
        values.append(float(value))
        particle = jax.tree.map(lambda leaf, g: leaf - 0.1 * g, particle, slope)
    assert np.all(np.diff(values) < 0)
    # At the first step the particle is the model's own, in the layer that covers t = 0.75.
    moved = jax.tree.map(lambda leaf: leaf[1, 2], wgf.velocity(objective, model))
    start = jax.tree.map(lambda leaf: leaf[1, 2], model.measure.particles)
    _, slope = variation(start)
    for leaf, g in zip(jax.tree.leaves(moved), jax.tree.leaves(slope), strict=True):
        np.testing.assert_allclose(leaf, -g, rtol=bound(1e-9, 1e-4), atol=bound(1e-12, 1e-6))


@pytest.mark.heavy
def test_flows_over_decays_and_seeds_are_those_one_by_one(problem):
    objective, model = problem
    encoder, law = model.encoder, wgf.measures.Gaussian(model.encoder, 0.5)
    decays = jnp.array([0.0, 1e-2, 1.0])

    @jax.jit
    def last(decay, key):
        start = wgf.Transformer(encoder, law.layered(2, 3, key))
        solution = wgf.flow(wgf.Objective(objective.prompts, decay), start, TAUS, max_steps=64)
        return solution.objective[-1], solution.stats["num_steps"]

    over_seeds = jax.vmap(last, (None, 0))
    (found, steps) = jax.jit(jax.vmap(over_seeds, (0, None)))(decays, KEYS)
    assert found.shape == (3, 4)
    for i, decay in enumerate(decays):
        for j, key in enumerate(KEYS):
            expected, alone = last(decay, key)
            # Rounding in float32 may move a step.
            assert abs(int(steps[i, j]) - int(alone)) <= bound(0, 1)
            np.testing.assert_allclose(found[i, j], expected, rtol=bound(1e-10, 1e-4))


def test_tree_at_replaces_any_part(problem):
    objective, model = problem
    doubled = eqx.tree_at(lambda m: m.measure.particles, model, replace_fn=lambda p: jax.tree.map(lambda x: 2 * x, p))
    expected = model.with_particles(jax.tree.map(lambda x: 2 * x, model.measure.particles))
    np.testing.assert_array_equal(doubled(objective.prompts.tokens), expected(objective.prompts.tokens))
    heavier = eqx.tree_at(lambda o: o.weight_decay, objective, 2 * objective.weight_decay)
    np.testing.assert_allclose(
        heavier(model) - heavier.risk(model), 2 * (objective(model) - objective.risk(model)), rtol=bound(1e-9, 1e-4)
    )
