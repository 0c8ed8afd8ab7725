"""Public functions under `jit` and `vmap`: the numbers are those of the plain call.

Flows are in tests/flows/test_flow.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import averaged, bound, regression

import wgf
from wgf import analysis, companions, encoders, flows, measures, prompts, transport

pytestmark = pytest.mark.heavy


class Drawn:
    """A small problem of a key and of a number, both of which may be traced."""

    def __init__(self, key, scale):
        self.key, self.scale = key, scale
        self.prompts = regression(key, batch=2, examples=2, dim=1)
        self.encoder = averaged(self.prompts.token_dim)
        self.law = measures.Gaussian(self.encoder, scale)
        self.objective = wgf.Objective(self.prompts, 1e-2 * scale)
        self.cloud = scale * jax.random.normal(key, (6, 2))

    @property
    def finite(self):
        return wgf.Transformer(self.encoder, self.law.layered(2, 2, self.key))

    @property
    def limit(self):
        return wgf.AveragedODE(self.encoder, self.law.spectral(1, 2, self.key), steps=1)

    @property
    def traced(self):
        return self.limit.with_tracers(self.finite)

    @property
    def limits(self):
        return [
            wgf.AveragedODE(self.encoder, self.law.spectral(1, 2, key), steps=1) for key in jax.random.split(self.key)
        ]

    @property
    def replicates(self):
        return wgf.flow_replicates(
            self.objective, self.limits, TAUS, tracers=[self.law.layered(2, 3, self.key)], throw=False
        )

    @property
    def flow(self):
        model = self.finite.with_tracers(self.law.layered(2, 3, self.key))
        return wgf.flow(self.objective, model, TAUS, throw=False)

    @property
    def companion(self):
        keys = jax.random.split(self.key)
        inputs = self.scale * jax.random.normal(keys[0], (2, 3, 4))
        return companions.SquareLoss(inputs, jnp.ones_like(inputs)), companions.ResidualTransformer(
            4, 4, depth=1, key=keys[1]
        )

    @property
    def gap(self):
        found = wgf.gap(self.flow, self.replicates)
        return found.risk, found.output, found.coupling, found.gelbrich, found.sinkhorn, found.noise.risk


TABLE = np.arange(24.0).reshape(8, 3) ** 1.5
TAUS = (0.0, 0.1)
KERNELS = ("linear_kernel", "relu_kernel", "sigmoid_kernel", "gaussian_kernel")

CALLS = {
    "linear_regression": lambda p: p.prompts.tokens,
    "layered": lambda p: p.law.layered(2, 3, p.key).particles,
    "staged": lambda p: p.law.staged(2, p.key, joint=True).particles,
    "fit": lambda p: measures.Spectral.fit(p.finite.measure, 2).particles,
    "trajectory": lambda p: p.limit.trajectory(p.prompts.tokens, jnp.array([0.0, 0.5])),
    "objective": lambda p: (p.objective(p.finite), p.objective.risk(p.limit), p.objective.outputs(p.finite)),
    "first_variation": lambda p: p.objective.first_variation(p.limit)(
        jax.tree.map(lambda leaf: leaf[0, 0], p.finite.measure.particles), 0.3
    ),
    "velocity": lambda p: wgf.velocity(p.objective, p.finite),
    "tracer_velocity": lambda p: flows.tracer_velocity(p.objective, p.traced),
    "train": lambda p: wgf.train(p.objective, p.finite, optax.sgd(0.1), steps=2, throw=False).objective,
    "flow_each": lambda p: analysis.flow_each(p.objective, p.limits, TAUS).objective,
    "pool": lambda p: analysis.pool(p.limits).measure.particles,
    "noise": lambda p: analysis.noise(p.replicates).coupling,
    "gap": lambda p: p.gap,
    "coordinates": lambda p: measures.coordinates(p.finite.measure.particles),
    "at_coordinates": lambda p: measures.at_coordinates(
        2 * measures.coordinates(p.finite.measure.particles), p.finite.measure.particles
    ),
    "next_tokens": lambda p: prompts.next_tokens(p.key, prompts.MarkovChain.binary(0.3, 0.4), batch=2, length=3).tokens,
    "symbol_tokens": lambda p: prompts.symbol_tokens(jnp.argmax(p.cloud, axis=1)[None], 2),
    "patch_prompts": lambda p: (
        prompts.patch_prompts(p.key, p.cloud.reshape(3, 2, 2, 1), jnp.arange(3), classes=3, patch=1).tokens
    ),
    **{name: lambda p, name=name: getattr(encoders, name)(p.cloud, p.cloud[:, ::-1]) for name in KERNELS},
    "sinkhorn_divergence": lambda p: transport.sinkhorn_divergence(p.cloud, p.cloud[::-1] + 1, epsilon=0.5).value,
    "conditional_divergence": lambda p: (
        transport.conditional_divergence(p.cloud[None], p.cloud[None] + 1, jnp.ones(1), epsilon=0.5).value
    ),
    "divergence_curve": lambda p: (
        transport.divergence_curve(jnp.stack([p.cloud, p.cloud + 1]), p.cloud[::-1], epsilon=0.5).value
    ),
    "plain_mean": lambda p: encoders.plain_mean(p.encoder, *p.finite.measure.at(0.2), tokens=p.prompts.tokens),
    "diabetes": lambda p: prompts.diabetes(p.key, batch=2, examples=2).tokens,
    "gelbrich_distance": lambda p: transport.gelbrich_distance(p.cloud, 2 * p.cloud + 1),
    "coupling_distance": lambda p: transport.coupling_distance(
        p.finite.measure,
        p.finite.with_particles(jax.tree.map(lambda leaf: leaf + 0.1, p.finite.measure.particles)).measure,
    ),
    "epsilon_from_scale": lambda p: transport.epsilon_from_scale(p.cloud),
    "tangent_kernel": lambda p: analysis.tangent_kernel(p.objective, p.finite).matrix,
    "certificate": lambda p: analysis.certificate(p.objective, p.finite, key=p.key, starts=2, max_steps=4).mean,
    "from_table": lambda p: prompts.from_table(p.key, TABLE, TABLE[:, 0], batch=2, examples=2).tokens,
    "pad_prompts": lambda p: prompts.pad_prompts([p.cloud.T, p.cloud[:3].T], jnp.zeros(2), label_row=0).tokens,
    "spectrum": lambda p: companions.spectrum(p.cloud).greatest,
    "MarkovChain.sample": lambda p: prompts.MarkovChain.binary(0.3, 0.4).sample(p.key, 2, 4),
    "attention_spectrum": lambda p: companions.attention_spectrum(*p.companion).greatest,
    "linear_rate_bound": lambda p: companions.linear_rate_bound(*p.companion),
    "step_size": lambda p: companions.step_size(*p.companion, p.scale),
    "companion": lambda p: companions.ResidualTransformer(4, 4, depth=1, key=p.key)(jnp.ones((1, 2, 4)), p.scale),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_numbers_are_those_of_the_plain_call(name):
    def call(key, scale):
        return [jnp.asarray(leaf) for leaf in jax.tree.leaves(CALLS[name](Drawn(key, scale)))]

    keys, scales = jax.random.split(jax.random.key(3), 2), jnp.array([0.5, 0.8])
    plain = [call(key, scale) for key, scale in zip(keys, scales, strict=True)]
    close = {"rtol": bound(1e-9, 2e-4), "atol": bound(1e-11, 1e-5)}
    for found, expected in zip(jax.jit(call)(keys[0], scales[0]), plain[0], strict=True):
        np.testing.assert_allclose(found, expected, **close)
    for found, *each in zip(jax.vmap(call)(keys, scales), *plain, strict=True):
        np.testing.assert_allclose(found, np.stack(each), **close)
