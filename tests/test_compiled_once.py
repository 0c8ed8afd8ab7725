"""Calls outside of any `jit`, as in a notebook: the second one compiles nothing, and memory stays."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Matrix, averaged, programs

import wgf
from wgf import analysis, companions, encoders, flows, measures, objective, prompts, sharding, transport
from wgf.flows import RKC, RosenbrockW

# The gate runs them; the short command has more to prove.
pytestmark = pytest.mark.slow
TAUS = [0.0, 0.5, 1.0]
DEPTHS = np.array([0.1, 0.9])


class Fresh:
    """One of everything, made anew at each access: other numbers in the same shapes, objects equal but not the same."""

    def __init__(self, seed):
        self.seed = seed
        self.key = jax.random.key(seed)

    @property
    def prompts(self):
        return prompts.linear_regression(self.key, batch=4, examples=3, dim=1)

    @property
    def encoder(self):
        return averaged(4)

    @property
    def neurons(self):
        return encoders.Perceptron(4, jnp.tanh)

    @property
    def law(self):
        return measures.Gaussian(self.encoder, 0.5 + 0.1 * self.seed)

    @property
    def finite(self):
        return wgf.Transformer(self.encoder, self.law.layered(2, 4, self.key))

    @property
    def limit(self):
        return wgf.AveragedODE(self.encoder, self.law.spectral(2, 8, self.key))

    @property
    def adaptive(self):
        controller = diffrax.PIDController(rtol=1e-3, atol=1e-5)
        return wgf.AveragedODE(self.encoder, self.law.spectral(2, 8, self.key), controller=controller)

    @property
    def staged(self):
        return wgf.AveragedODE(self.encoder, self.law.staged(4, self.key))

    @property
    def grid(self):
        law = measures.Gaussian(encoders.Perceptron(1, jnp.tanh), 1.0)
        return law.eulerian(2, (4, 5, 6), -4 - 0.1 * self.seed, 4)

    @property
    def objective(self):
        return wgf.Objective(self.prompts, 1e-3 * (1 + self.seed))

    @property
    def module(self):
        return eqx.nn.MLP(2, "scalar", 3, 1, key=self.key)

    @property
    def flow(self):
        return wgf.flow(self.objective, self.finite, TAUS)

    @property
    def limit_flow(self):
        return wgf.flow(self.objective, self.limit.with_tracers(self.finite), TAUS)

    @property
    def replicates(self):
        keys = jax.random.split(self.key, 3)
        drawn = [wgf.AveragedODE(self.encoder, self.law.spectral(2, 8, key)) for key in keys]
        return wgf.flow_replicates(self.objective, drawn, TAUS)

    @property
    def gap(self):
        return wgf.gap(self.flow, self.replicates)

    @property
    def chain(self):
        return prompts.MarkovChain.binary(0.2 + 0.1 * self.seed, 0.3)

    @property
    def symbols(self):
        return self.chain.sample(self.key, 3, 5)

    @property
    def residual(self):
        return companions.ResidualTransformer(6, 8, depth=2, key=self.key)

    @property
    def square_loss(self):
        tokens = jax.random.normal(self.key, (2, 3, 6))
        return companions.SquareLoss(tokens, tokens[::-1], temperature=1.0 + self.seed)

    @property
    def one_layer(self):
        return companions.OneLayerTransformer.standard(self.key, length=5)

    @property
    def next_token_loss(self):
        return companions.NextTokenLoss.drawn(self.chain, self.key, batch=3, length=4)

    @property
    def canonical(self):
        return companions.CanonicalMarkov(0.5 + 0.1 * self.seed, -0.3)

    @property
    def canonical_risk(self):
        return companions.CanonicalRisk(0.2 + 0.1 * self.seed, 0.3)

    @property
    def particle(self):
        return jax.tree.map(lambda leaf: leaf[0, 0], self.finite.measure.particles)

    @property
    def layer(self):
        return jax.tree.map(lambda leaf: leaf[0], self.finite.measure.particles)

    @property
    def weights(self):
        return jnp.full(4, 0.25)

    @property
    def tokens(self):
        return self.prompts.tokens

    @property
    def depth(self):
        """A Python number, as users write depths; another one each time."""
        return 0.1 + 0.2 * (self.seed % 4)

    @property
    def table(self):
        return np.random.default_rng(self.seed).normal(size=(20, 5)), np.arange(20.0) + self.seed

    @property
    def clouds(self):
        return jax.random.normal(self.key, (2, 3, 8, 2))


def act(encoder):
    """All that an encoder does."""

    def call(f):
        made = encoder(f)
        particles = made.sample(f.key, (4,))
        one = jax.tree.map(lambda leaf: leaf[0], particles)
        done = made(one, f.tokens[0]), made.mean(particles, f.weights, f.tokens)
        plain = encoders.plain_mean(made, particles, f.weights, f.tokens)
        fused = made.fused_mean(particles, f.weights, f.tokens) if hasattr(made, "fused_mean") else None
        return done, plain, fused, made.reflect(one) if made.is_odd else None

    return call


def draw(sampling):
    """All that an initial law does, sampled in one way."""

    def call(f):
        law = measures.Gaussian(f.encoder, 0.5 + 0.1 * f.seed, sampling())
        drawn = law.layered(2, 16, f.key), law.spectral(2, 16, f.key), law.staged(16, f.key)
        return drawn, law.sample(f.key, 16), sampling()(f.key, f.encoder, 16)

    return call


def flow(objective="objective", model="finite", **options):
    """A flow, with every option made anew by a function."""
    return lambda f: wgf.flow(
        getattr(f, objective), getattr(f, model), TAUS, **{name: make(f) for name, make in options.items()}
    )


def mean_square(_):
    """A user's objective, made anew."""
    return lambda module: jnp.mean((jax.vmap(module)(jnp.ones((3, 2))) - 1) ** 2)


CALLS = {
    # Objectives.
    "Objective": lambda f: f.objective,
    "Objective.__call__": lambda f: f.objective(f.finite),
    "Objective.__call__ of the limit": lambda f: f.objective(f.limit),
    "Objective.__call__ of stages": lambda f: f.objective(f.staged),
    "Objective.__call__ of an adaptive solve": lambda f: f.objective(f.adaptive),
    "Objective.value_and_outputs": lambda f: f.objective.value_and_outputs(f.finite),
    "Objective.risk": lambda f: f.objective.risk(f.finite),
    "Objective.outputs": lambda f: f.objective.outputs(f.limit),
    "Objective.score": lambda f: f.objective.score(f.prompts.labels),
    "Objective.penalty": lambda f: f.objective.penalty(f.limit),
    "Objective.minibatch": lambda f: f.objective.minibatch(f.key, 2),
    "Objective.adjoint": lambda f: f.objective.adjoint(f.finite).tokens(f.depth),
    "Objective.first_variation": lambda f: f.objective.first_variation(f.finite)(f.particle, f.depth),
    "FirstVariation.__call__": lambda f: f.objective.first_variation(f.limit)(f.particle, f.depth),
    "FirstVariation.gradient": lambda f: f.objective.first_variation(f.limit).gradient(f.layer, f.depth),
    "its gradient": lambda f: eqx.filter_grad(lambda model: f.objective(model))(f.finite),
    "its gradient at the limit": lambda f: eqx.filter_grad(lambda model: f.objective(model))(f.limit),
    "value and gradient": lambda f: eqx.filter_value_and_grad(
        lambda model: f.objective(model) + f.objective.risk(model)
    )(f.finite),
    "velocities along a map": lambda f: eqx.filter_vmap(f.objective)(
        jax.tree.map(lambda x: jnp.stack([x, 2 * x]) if eqx.is_array(x) else x, f.finite)
    ),
    "HalfSquaredError.__call__": lambda f: objective.HalfSquaredError()(f.prompts.labels, f.prompts.labels),
    "CrossEntropy.__call__": lambda f: objective.CrossEntropy()(f.clouds[0, :, :, 0], jnp.array([0, 1, f.seed % 2])),
    "QueryEntry.__call__": lambda f: objective.QueryEntry(1)(f.tokens),
    "QueryRows.__call__": lambda f: objective.QueryRows(1, 2)(f.tokens),
    "EveryRows.__call__": lambda f: objective.EveryRows(1, 2)(f.tokens),
    "FunctionLoss": lambda f: objective.FunctionLoss(lambda x, y: (x - y) ** 2)(f.prompts.labels, f.prompts.labels),
    "FunctionReadout": lambda f: objective.FunctionReadout(lambda tokens: tokens[0, -1])(f.tokens),
    "Objective of functions": lambda f: wgf.Objective(f.prompts, loss=lambda x, y: (x - y) ** 2)(f.finite),
    # Models.
    "Transformer": lambda f: f.finite,
    "Transformer.__call__": lambda f: f.finite(f.tokens),
    "Transformer.trajectory": lambda f: f.finite.trajectory(f.tokens, DEPTHS),
    "Transformer.adjoint": lambda f: f.finite.adjoint(f.tokens, jnp.sign).costates(f.depth),
    "AveragedODE": lambda f: f.limit,
    "AveragedODE.__call__": lambda f: f.limit(f.tokens),
    "AveragedODE.__call__ adaptive": lambda f: f.adaptive(f.tokens),
    "AveragedODE.trajectory": lambda f: f.limit.trajectory(f.tokens, DEPTHS),
    "AveragedODE.trajectory adaptive": lambda f: f.adaptive.trajectory(f.tokens, DEPTHS),
    "AveragedODE.adjoint": lambda f: f.limit.adjoint(f.tokens, jnp.sign).costates(f.depth),
    "AveragedODE.adjoint adaptive": lambda f: f.adaptive.adjoint(f.tokens, jnp.sign).tokens(f.depth),
    "AveragedODE.field": lambda f: f.limit.field(f.depth, f.tokens),
    "AbstractModel.with_particles": lambda f: f.finite.with_particles(f.finite.measure.particles),
    "AbstractModel.with_tracers": lambda f: f.limit.with_tracers(f.finite),
    "AbstractModel.with_tracer_particles": lambda f: f.limit.with_tracers(f.finite).with_tracer_particles(
        (f.finite.measure.particles,)
    ),
    # Encoders.
    "SoftmaxAttention": act(lambda f: encoders.SoftmaxAttention(4, key_dim=2)),
    "SoftmaxAttention causal": act(lambda f: encoders.SoftmaxAttention(4, key_dim=2, mask=encoders.Causal())),
    "Intersection": act(
        lambda f: encoders.SoftmaxAttention(
            4, key_dim=2, mask=encoders.Intersection(encoders.Causal(), encoders.Banded(1))
        )
    ),
    "Perceptron": act(lambda f: encoders.Perceptron(4, jnp.tanh)),
    "Convolution": act(lambda f: encoders.Convolution(4)),
    "KernelAttention": act(lambda f: encoders.KernelAttention(4, key_dim=2, kernel=encoders.gaussian_kernel)),
    "Average": act(lambda f: f.encoder),
    "LayerNorm": act(lambda f: encoders.LayerNorm(f.encoder)),
    "Chunked": act(lambda f: encoders.Chunked(f.encoder, particles=2, prompts=2)),
    "Zero": lambda f: encoders.Average(encoders.Zero(), f.neurons).mean(
        encoders.Pair((), f.neurons.sample(f.key, (4,))), f.weights, f.tokens
    ),
    "AbstractEncoder": act(lambda f: Matrix(4)),
    # Measures.
    "Gaussian": draw(measures.Independent),
    "Sobol": draw(measures.Sobol),
    "SignPairs": draw(lambda: measures.SignPairs(measures.Sobol())),
    "SignOrbits": draw(lambda: measures.SignOrbits((("f.value", "h.w_out"), ("f.key", "h.w_in")))),
    "Whitened": lambda f: measures.Gaussian(f.neurons, 0.5, measures.Whitened()).spectral(2, 64, f.key),
    "Whitened.__call__": lambda f: measures.Whitened()(f.key, f.neurons, 64),
    "EncoderLaw": lambda f: (
        measures.EncoderLaw(f.encoder, 0.5).layered(2, 4, f.key),
        measures.EncoderLaw(f.encoder, 0.5 + f.seed).sample(f.key, 4),
    ),
    "Gaussian.eulerian": lambda f: f.grid,
    "AbstractMeasure.at": lambda f: [
        m.at(f.depth) for m in (f.finite.measure, f.limit.measure, f.staged.measure, f.grid)
    ],
    "AbstractMeasure.depths": lambda f: [
        (m.depths, m.depth_weights, m.masses) for m in (f.finite.measure, f.limit.measure, f.staged.measure, f.grid)
    ],
    "AbstractMeasure.second_moment": lambda f: [
        m.second_moment() for m in (f.finite.measure, f.limit.measure, f.staged.measure, f.grid)
    ],
    "Layered": lambda f: measures.Layered(f.finite.measure.particles, f.weights).layer(f.depth),
    "Spectral": lambda f: measures.Spectral(f.finite.measure.particles, f.weights).basis(f.depth),
    "Staged": lambda f: measures.Staged(f.clouds[:, 0], solver=diffrax.Ralston()),
    "Eulerian": lambda f: (f.grid.entropy(), f.grid.particles, f.grid.spacing),
    "coordinates": lambda f: measures.at_coordinates(
        measures.coordinates(f.finite.measure.particles), f.finite.measure.particles
    ),
    # Flows.
    "velocity": lambda f: wgf.velocity(f.objective, f.finite),
    "velocity of the limit": lambda f: wgf.velocity(f.objective, f.limit),
    "tracer_velocity": lambda f: flows.tracer_velocity(f.objective, f.limit.with_tracers(f.finite)),
    "flow": flow(),
    "flow_many": lambda f: wgf.flow_many(f.objective, [f.finite, f.finite], TAUS),
    "flow of the limit": flow(model="limit"),
    "flow of an adaptive solve": flow(model="adaptive"),
    "flow of tracers": lambda f: f.limit_flow,
    "flow by Tsit5": flow(solver=lambda f: diffrax.Tsit5(), rtol=lambda f: 1e-3 * (1 + f.seed)),
    "flow by RKC": flow(solver=lambda f: RKC(), model="limit"),
    "flow by RosenbrockW": flow(solver=lambda f: RosenbrockW(), model="limit"),
    "flow under control": flow(controller=lambda f: diffrax.PIDController(1e-3, 1e-6, pcoeff=0.3, icoeff=0.3)),
    "flow in constant steps": flow(
        solver=lambda f: diffrax.Euler(),
        controller=lambda f: diffrax.ConstantStepSize(),
        dt0=lambda f: 0.1 / (1 + f.seed),
    ),
    "flow with noise": flow(temperature=lambda f: 0.1 * (1 + f.seed), key=lambda f: f.key, dt0=lambda f: 0.1),
    "flow to rest": flow(steady=lambda f: 1e-3 * (1 + f.seed)),
    "run": lambda f: wgf.run(f.objective, f.finite, TAUS, progress=False),
    "run of a function": lambda f: wgf.run(mean_square(f), f.module, TAUS, progress=False),
    "flow of a function": lambda f: wgf.flow(mean_square(f), f.module, TAUS),
    "train": lambda f: wgf.train(f.objective, f.finite, optax.adam(1e-2), steps=2),
    "train of a function": lambda f: wgf.train(mean_square(f), f.module, optax.lbfgs(), steps=2),
    "train in batches": lambda f: wgf.train(f.objective, f.finite, optax.adamw(1e-2), steps=2, batch=2, key=f.key),
    "AbstractSolution.model_at": lambda f: f.flow.model_at(-1),
    "ParticleNorm": lambda f: flows.ParticleNorm(f.finite.measure.weights)(f.finite.measure.particles),
    # Analysis.
    "gap": lambda f: wgf.gap(f.flow, f.limit_flow),
    "flow_replicates": lambda f: f.replicates,
    "Replicates.transport_error": lambda f: f.replicates.transport_error(),
    "Estimate": lambda f: (f.replicates.risk.interval(), f.replicates.outputs.error, f.replicates.objective.mean),
    "Gap.resolved": lambda f: (f.gap.resolved, f.gap.squared_output(), f.gap.noise.factor),
    "certificate": lambda f: analysis.certificate(f.objective, f.limit, key=f.key, starts=2, max_steps=3).value,
    "certificate at depths": lambda f: (
        analysis.certificate(
            f.objective, f.finite, key=f.key, starts=2, max_steps=3, depths=[f.depth], radius=3.0 + f.seed
        ).gap
    ),
    "check_assumptions": lambda f: analysis.check_assumptions(f.encoder, f.prompts, key=f.key, samples=16),
    "cubature": lambda f: analysis.cubature(f.objective, f.limit_flow, f.law.spectral(2, 64, f.key), 32),
    "diagnose": lambda f: analysis.diagnose(f.objective, f.flow, key=f.key),
    # Prompts.
    "Prompts": lambda f: prompts.Prompts(f.tokens, f.prompts.labels, label_row=1),
    "Prompts.draw": lambda f: (f.prompts.draw(f.key, 3), f.prompts.expect(f.prompts.labels), f.prompts.label_rms()),
    "linear_regression": lambda f: prompts.linear_regression(
        f.key, batch=4, examples=3, dim=2, inputs="gaussian", noise=0.1 * f.seed
    ),
    "from_table": lambda f: prompts.from_table(f.key, *f.table, batch=4, examples=3),
    "diabetes": lambda f: prompts.diabetes(f.key, batch=4, examples=3),
    "digits": lambda f: prompts.digits(f.key, features=3),
    "MarkovChain": lambda f: f.chain,
    "MarkovChain of order 2": lambda f: prompts.MarkovChain(jnp.full((2, 2, 2), 0.5)).sample(f.key, 3, 5),
    "MarkovChain.sample": lambda f: f.symbols,
    "MarkovChain.entropy": lambda f: (
        f.chain.stationary(),
        f.chain.marginal(),
        f.chain.entropy(),
        f.chain.entropy_rate(),
    ),
    "MarkovChain.next_laws": lambda f: f.chain.next_laws(f.symbols),
    "next_tokens": lambda f: prompts.next_tokens(f.key, f.chain, batch=3, length=4),
    "symbol_tokens": lambda f: prompts.symbol_tokens(f.symbols, 2),
    # Companions.
    "CanonicalMarkov": lambda f: (f.canonical.gain, f.canonical.energy),
    "CanonicalRisk": lambda f: (
        f.canonical_risk(f.canonical),
        f.canonical_risk.global_gain,
        f.canonical_risk.chain,
        f.canonical_risk.reaches_global(f.canonical),
        f.canonical_risk.separatrix(jnp.linspace(-1, 0, 5)),
    ),
    "spectrum": lambda f: companions.spectrum(f.clouds).condition,
    "attention_spectrum": lambda f: companions.attention_spectrum(f.square_loss, f.residual),
    "linear_rate_bound": lambda f: companions.linear_rate_bound(f.square_loss, f.residual),
    "step_size": lambda f: companions.step_size(f.square_loss, f.residual, 0.1 * (1 + f.seed)),
    "NextTokenLoss": lambda f: (f.next_token_loss(f.one_layer), f.next_token_loss.excess(f.one_layer)),
    "NextTokenLoss.minibatch": lambda f: f.next_token_loss.minibatch(f.key, 2),
    "OneLayerTransformer": lambda f: f.one_layer(f.symbols),
    "OneLayerTransformer.rank_one": lambda f: companions.OneLayerTransformer.rank_one(
        f.key, 0.5 + 0.1 * f.seed, -0.3, length=5
    ),
    "ResidualTransformer": lambda f: (
        f.residual(f.clouds[:, :, :6, 0], 0.5 + f.seed),
        f.residual.attended(f.clouds[:, :, :6, 0]),
    ),
    "SquareLoss": lambda f: f.square_loss(f.residual),
    "flow of a companion": lambda f: wgf.flow(f.square_loss, f.residual, TAUS),
    # Devices and transport.
    "shard": lambda f: sharding.gather(sharding.shard(f.objective, sharding.mesh())),
    "coupling_distance": lambda f: transport.coupling_distance(f.finite.measure, f.finite.measure),
    "epsilon_from_scale": lambda f: transport.epsilon_from_scale(f.clouds[0, 0]),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_compiles_nothing(name):
    CALLS[name](Fresh(0))
    with programs() as names:
        CALLS[name](Fresh(1))
    assert names == []
