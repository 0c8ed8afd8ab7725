"""The programs that must compile for every chip: each returns a function and the trees whose arrays it is given."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from helpers import Matrix, averaged, encoders

import wgf
from wgf.analysis._cubature import _contributions
from wgf.flows._problem import initial_value_problem
from wgf.flows._run.segment import advance, begin
from wgf.models._padding import pad

KEY = jax.random.key(0)
PROMPTS = wgf.prompts.linear_regression(KEY, batch=4, examples=3, dim=2)
OBJECTIVE = wgf.Objective(PROMPTS, 1e-3)
AVERAGE = averaged(PROMPTS.token_dim)
# Most programs have an encoder that is compiled fast.
ENCODER = wgf.encoders.Perceptron(PROMPTS.token_dim, jnp.tanh)
TAUS = jnp.array([0.0, 0.1, 0.2])
PROGRAMS = {}


def program(name):
    """Register what makes a program."""

    def register(make):
        PROGRAMS[name] = make
        return make

    return register


def finite(encoder=ENCODER, depth=2, width=8):
    return wgf.Transformer(encoder, wgf.measures.Gaussian(encoder).layered(depth, width, KEY))


def spectral(encoder=ENCODER, key=KEY):
    return wgf.AveragedODE(encoder, wgf.measures.Gaussian(encoder).spectral(2, 8, key))


def staged(encoder=ENCODER):
    solver = wgf.measures.ThreeEighths()
    return wgf.AveragedODE(encoder, wgf.measures.Gaussian(encoder).staged(8, KEY, solver=solver))


def eulerian():
    """On a grid of one dimension: tokens are numbers."""
    encoder = Matrix(1)
    measure = wgf.measures.Gaussian(encoder).eulerian(2, (16,), -4, 4)
    return wgf.AveragedODE(encoder, measure)


def scalar_objective():
    return wgf.Objective(wgf.prompts.Prompts(PROMPTS.tokens[:, :1], PROMPTS.labels, label_row=0), 1e-3)


def flow(**options):
    """A flow with these options, as a function of objective and model."""
    return lambda objective, model: wgf.flow(objective, model, TAUS, throw=False, **options)


# One velocity of each encoder, a user's own among them.

for name, encoder in encoders(PROMPTS.token_dim).items():
    program(f"velocity, {name}")(lambda encoder=encoder: (wgf.velocity, OBJECTIVE, finite(encoder)))


class Rounded(Matrix):
    """A user's own encoder that asks for the chip's fastest product."""

    def __call__(self, particle, tokens):
        return jnp.matmul(particle, tokens, precision="default")


@program("encoder that rounds")
def rounded_encoder():
    return wgf.velocity, OBJECTIVE, finite(Rounded(PROMPTS.token_dim))


def chosen(precision):
    def velocity(objective, model):
        with jax.default_matmul_precision(precision):
            return wgf.velocity(objective, model)

    return velocity


@program("chosen precision")
def chosen_precision():
    return chosen("tensorfloat32"), OBJECTIVE, finite(AVERAGE)


# Flows of every kind of model, each alone and with the particles of a finite model as tracers.

MODELS = {
    "finite": finite,
    "padded": lambda: pad(finite(), 4, 8),
    "spectral": spectral,
    "staged": staged,
    "Eulerian": eulerian,
}
for name, make in MODELS.items():
    task = scalar_objective() if name == "Eulerian" else OBJECTIVE
    rider = finite(Matrix(1)) if name == "Eulerian" else finite(depth=3, width=4)
    program(f"flow, {name}")(lambda task=task, make=make: (flow(), task, make()))
    program(f"flow, {name}, tracers")(
        lambda task=task, make=make, rider=rider: (flow(), task, make().with_tracers(rider))
    )


@program("flow of attention, tracers")
def flow_of_attention():
    return flow(), OBJECTIVE, spectral(AVERAGE).with_tracers(finite(AVERAGE))


@program("flow of replicates")
def flow_of_replicates():
    def replicates(objective, first, second, rider):
        return wgf.flow_replicates(objective, [first, second], TAUS, tracers=[rider], throw=False)

    return replicates, OBJECTIVE, spectral(), spectral(key=jax.random.key(1)), finite()


@program("flow by Chebyshev")
def flow_by_chebyshev():
    return flow(solver=wgf.flows.RKC(10), steady=1e-3), OBJECTIVE, finite()


@program("flow by Rosenbrock")
def flow_by_rosenbrock():
    return flow(solver=wgf.flows.RosenbrockW()), OBJECTIVE, finite()


@program("flow with noise")
def flow_with_noise():
    options = {"temperature": 0.1, "key": KEY, "dt0": 0.05}
    return flow(**options), OBJECTIVE, spectral().with_tracers(finite())


@program("flow on a grid at a temperature")
def flow_on_a_grid_at_a_temperature():
    return flow(temperature=0.1), scalar_objective(), eulerian()


@program("flow of a plain module")
def flow_of_a_plain_module():
    def task(module):
        return jnp.mean((jax.vmap(module)(PROMPTS.tokens[:, :, 0]) - PROMPTS.labels[:, None]) ** 2)

    module = eqx.nn.MLP(PROMPTS.token_dim, 1, 8, 1, key=KEY)
    return lambda module: wgf.flow(task, module, TAUS, throw=False), module


@program("part of a run")
def part_of_a_run():
    def part(objective, model):
        nothing = dict.fromkeys(("key", "solver", "controller", "dt0"))
        problem = initial_value_problem(
            objective, model, TAUS, temperature=0.0, rtol=1e-4, atol=1e-6, steady=1e-3, **nothing
        )
        return advance(problem, *begin(problem), 4)

    return part, OBJECTIVE, spectral().with_tracers(finite())


@program("depth solved adaptively")
def depth_solved_adaptively():
    controller = diffrax.PIDController(1e-3, 1e-5)
    measure = wgf.measures.Gaussian(ENCODER).spectral(2, 8, KEY)
    return wgf.velocity, OBJECTIVE, wgf.AveragedODE(ENCODER, measure, controller=controller, steps=8)


@program("training")
def training():
    def train(objective, model):
        whole = wgf.train(objective, model, optax.adam(1e-2), steps=4, save_every=2, throw=False)
        return whole, wgf.train(objective, model, optax.sgd(1e-2), steps=4, batch=2, key=KEY, throw=False)

    return train, OBJECTIVE, finite()


# What is computed of one model.


@program("trajectories and first variation")
def trajectories_and_first_variation():
    def at_depths(objective, model):
        tokens, depths = objective.prompts.tokens, jnp.array([0.0, 0.3, 1.0])
        first_variation = objective.first_variation(model)
        particles, _ = model.measure.at(0.3)
        return model.trajectory(tokens, depths), first_variation.gradient(particles, 0.3)

    return lambda objective, *models: [at_depths(objective, model) for model in models], OBJECTIVE, finite(), spectral()


@program("certificate")
def certificate():
    options = {"key": KEY, "starts": 4, "max_steps": 10}
    return lambda *args: wgf.analysis.certificate(*args, **options), OBJECTIVE, spectral()


@program("certificate of stages")
def certificate_of_stages():
    function, objective, _ = certificate()
    return function, objective, staged()


@program("contributions of tracers")
def contributions_of_tracers():
    def contributions(objective, pilot, base):
        pilot = eqx.tree_at(lambda solution: solution.taus, pilot, TAUS)
        return _contributions(objective, pilot, base.particles, True)

    # More than a block of them, and a rest.
    base = wgf.measures.Gaussian(ENCODER, 1.0, wgf.measures.SignPairs()).staged(
        600, KEY, solver=wgf.measures.ThreeEighths()
    )
    return contributions, OBJECTIVE, solved(staged()), base


@program("initial samples")
def initial_samples():
    def draw(key):
        sampling = wgf.measures.Whitened(wgf.measures.SignPairs())
        return wgf.measures.Gaussian(ENCODER, sampling=sampling).layered(2, 256, key)

    return draw, KEY


@program("prompts")
def prompts():
    def draw(key, transition):
        chain = wgf.prompts.MarkovChain(transition)
        regression = wgf.prompts.linear_regression(key, batch=4, examples=3, dim=2)
        laws = chain.stationary(), chain.entropy_rate(), wgf.prompts.next_tokens(key, chain, batch=4, length=5)
        return regression, laws

    return draw, KEY, jnp.array([[0.9, 0.1], [0.3, 0.7]])


# Comparisons of two models.


def solved(model):
    """The shapes of a flow's solution."""
    return eqx.filter_eval_shape(flow(), OBJECTIVE, model)


def compared(finite, limit):
    """The gap. The times of both flows must be known: they are compared at once."""
    if isinstance(limit, wgf.analysis.Replicates):
        limit = eqx.tree_at(lambda r: r.pooled.taus, limit, TAUS)
    else:
        limit = eqx.tree_at(lambda s: s.taus, limit, TAUS)
    gap = wgf.gap(eqx.tree_at(lambda s: s.taus, finite, TAUS), limit, unpaired=True)
    return gap, gap.resolved, gap.squared_output()


@program("gap to one limit")
def gap_to_one_limit():
    return compared, solved(finite()), solved(spectral())


@program("gap with tracers")
def gap_with_tracers():
    return compared, solved(finite()), solved(spectral().with_tracers(finite()))


@program("gap to replicates")
def gap_to_replicates():
    replicates = eqx.filter_eval_shape(
        lambda *models: wgf.flow_replicates(OBJECTIVE, models, TAUS, throw=False), spectral(), spectral()
    )
    return compared, solved(finite()), replicates


@program("divergences")
def divergences():
    def value(x, y, block):
        epsilon = wgf.transport.epsilon_from_scale(x)
        return wgf.transport.sinkhorn_divergence(x, y, epsilon=epsilon, block=block).value

    def all_of_them(x, y):
        whole, in_blocks = (jax.value_and_grad(lambda x, block=block: value(x, y, block))(x) for block in (None, 4))
        clouds, others = jnp.stack([x, x]), jnp.stack([y, y])
        curve = wgf.transport.divergence_curve(clouds, y, epsilon=0.5)
        return (
            whole,
            in_blocks,
            curve,
            wgf.transport.conditional_divergence(clouds, others, jnp.ones(2) / 2, epsilon=0.5),
        )

    return all_of_them, jnp.ones((8, 3)), jnp.ones((12, 3))


# Companions.


@program("one-layer Transformer")
def one_layer_transformer():
    loss = wgf.companions.NextTokenLoss.drawn(wgf.prompts.MarkovChain.binary(0.2, 0.3), KEY, batch=4, length=6)

    def moved(loss, model):
        trained = wgf.train(loss, model, optax.adam(1e-2), steps=4, batch=4, key=KEY, throw=False)
        return trained, wgf.flow(loss, model, TAUS, throw=False), loss.excess(model)

    return moved, loss, wgf.companions.OneLayerTransformer.standard(KEY, length=6)


@program("canonical model")
def canonical_model():
    def moved(loss, model):
        return wgf.flow(loss, model, TAUS, throw=False), loss.reaches_global(model)

    return moved, wgf.companions.CanonicalRisk(0.2, 0.3), wgf.companions.CanonicalMarkov(0.5, -0.3)


@program("residual Transformer")
def residual_transformer():
    def moved(loss, model):
        rate = wgf.companions.linear_rate_bound(loss, model), wgf.companions.step_size(loss, model, 0.05)
        return wgf.train(loss, model, optax.sgd(1e-2), steps=4, throw=False), rate

    tokens = jax.random.normal(KEY, (2, 3, 6))
    return moved, wgf.companions.SquareLoss(tokens, tokens), wgf.companions.ResidualTransformer(6, 8, depth=2, key=KEY)
