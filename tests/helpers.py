"""The zoo of small problems that the tests share."""

import contextlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.text import Text
from scipy.integrate import solve_ivp

import wgf
from wgf.companions import ResidualTransformer, SquareLoss
from wgf.encoders import AbstractEncoder
from wgf.measures import coordinates
from wgf.transport import sinkhorn_divergence


class Matrix(AbstractEncoder):
    """The linear encoder h(T, W) = W T, whose flow has a closed form; the particle is the bare array W."""

    token_dim: int

    def sample(self, key, shape):
        return jax.random.normal(key, (*shape, self.token_dim, self.token_dim))

    def __call__(self, particle, tokens):
        return particle @ tokens


def in_float64() -> bool:
    """Whether numbers are in float64 here unless a type is given."""
    return jnp.result_type(float) == jnp.float64


def bound(float64, float32):
    """The bound on an error in the precision that the suite runs in."""
    return float64 if in_float64() else float32


float64_only = pytest.mark.skipif(not in_float64(), reason="needs float64: in float32 rounding hides what is measured")
# The precisions that the suite may run in.
FLOATS = [jnp.float32, jnp.float64] if in_float64() else [jnp.float32]


@contextlib.contextmanager
def programs():
    """The names of the programs that are compiled meanwhile."""
    names = []

    def listen(event, _, **facts):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(facts["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@contextlib.contextmanager
def promotion():
    """Ranks and types are promoted, as OTT's own programs need."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def regression(key, batch=6, examples=4, dim=2):
    """A small in-context regression problem."""
    return wgf.prompts.linear_regression(key, batch=batch, examples=examples, dim=dim)


def averaged(token_dim, activation=jnp.tanh, key_dim=2):
    """Attention and perceptron, averaged."""
    return wgf.encoders.Average(
        wgf.encoders.SoftmaxAttention(token_dim, key_dim=key_dim),
        wgf.encoders.Perceptron(token_dim, activation),
    )


def encoders(token_dim):
    """Every encoder of the library, and a user's own, by name."""
    attention = wgf.encoders.SoftmaxAttention(token_dim, key_dim=2)
    perceptron = wgf.encoders.Perceptron(token_dim, jnp.tanh)
    return {
        "attention": attention,
        "perceptron": perceptron,
        "perceptron without bias": wgf.encoders.Perceptron(token_dim, jax.nn.gelu, use_bias=False),
        "average": wgf.encoders.Average(attention, perceptron),
        "attention only": wgf.encoders.Average(attention, wgf.encoders.Zero()),
        "perceptron only": wgf.encoders.Average(wgf.encoders.Zero(), perceptron),
        "kernel attention": wgf.encoders.KernelAttention(token_dim, key_dim=2, kernel=wgf.encoders.gaussian_kernel),
        "convolution": wgf.encoders.Convolution(token_dim, reach=1),
        "normalised": wgf.encoders.LayerNorm(attention, epsilon=1e-2),
        "user's own": Matrix(token_dim),
    }


def relative(a, b):
    """The greatest difference of two PyTrees of arrays, relative to the greatest entry of the second."""
    pairs = [tuple(map(np.asarray, pair)) for pair in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    return float(max(np.max(np.abs(x - y)) for x, y in pairs) / max(np.max(np.abs(y)) for _, y in pairs))


def scalar_problem(weight_decay):
    """Scalar tokens whose query is read, y = 1.7 H: with `Matrix(1)` the law's mean obeys a scalar ODE."""
    h = jnp.array([0.5, 1.0, -0.8])
    tokens = jnp.stack([jnp.zeros(3), h], axis=1)[:, None]
    return wgf.Objective(wgf.prompts.Prompts(tokens, 1.7 * h, label_row=0), weight_decay)


def scalar_mean(objective, taus):
    """The mean from 0 on, by SciPy: du/dτ = −E[(e^u H − y) e^u H] − λ u, at any temperature."""
    h, y = np.asarray(objective.prompts.tokens[:, 0, -1]), np.asarray(objective.prompts.labels)

    def field(tau, u):
        growth = np.exp(u[0])
        return [-np.mean((growth * h - y) * growth * h) - float(objective.weight_decay) * u[0]]

    return solve_ivp(field, (taus[0], taus[-1]), [0.0], "DOP853", taus, rtol=1e-12, atol=1e-13).y[0]


def scalar_variance(start, decay, temperature, taus):
    """The variance of an Ornstein–Uhlenbeck law."""
    rest = temperature / decay
    return rest + (start - rest) * np.exp(-2 * decay * np.asarray(taus))


def grid_wasserstein(measure, quantile, node=0, count=20000):
    """W₂ between one depth of a law on a line's grid, uniform in each cell, and a law of given quantiles."""
    levels = (np.arange(count) + 0.5) / count
    cdf = np.concatenate([[0.0], np.cumsum(measure.weights[node])])
    edges = np.linspace(float(measure.lower.ravel()[0]), float(measure.upper.ravel()[0]), len(cdf))
    return float(np.sqrt(np.mean((np.interp(levels, cdf, edges) - quantile(levels)) ** 2)))


def encoder_problem(encoder, dtype=float, width=6, batch=3, length=5):
    """Particles, weights (one of them zero) and tokens of dimension 4: the arguments of an encoder's mean."""
    particle_key, weight_key, token_key = jax.random.split(jax.random.key(5), 3)
    weights = jax.random.dirichlet(weight_key, jnp.ones(width)).at[2].set(0)
    args = encoder.sample(particle_key, (width,)), weights, jax.random.normal(token_key, (batch, 4, length))
    return jax.tree.map(lambda leaf: leaf.astype(dtype), args)


def vectors(particles):
    """Particles with leading axis `[width]` as vectors."""
    return np.asarray(coordinates(jax.tree.map(lambda leaf: leaf[None], particles))[0])


def whole(method):
    """A, b, c of the stages that enter the solution."""
    tableau = method.tableau
    stages = tableau.num_stages - 1
    rows = np.zeros((stages, stages))
    for stage, row in enumerate(tableau.a_lower[: stages - 1], start=1):
        rows[stage, :stage] = row
    return rows, tableau.b_sol[:stages], np.append(0.0, tableau.c[: stages - 1])


divergence = eqx.filter_jit(sinkhorn_divergence)


def uniform(cloud):
    """Equal weights in the cloud's own precision."""
    return jnp.full(cloud.shape[:-1], 1 / cloud.shape[-2], cloud.dtype)


def compare(x, y, epsilon=0.5, x_weights=None, y_weights=None):
    """The divergence of two clouds, of equal weights by default; compiled once for each pair of sizes."""
    x_weights = uniform(x) if x_weights is None else x_weights
    y_weights = uniform(y) if y_weights is None else y_weights
    return divergence(x, y, epsilon=jnp.asarray(epsilon, x.dtype), x_weights=x_weights, y_weights=y_weights)


def stacks(key):
    """Two stacks of clouds at three depths, with weights."""
    keys = jax.random.split(key, 4)
    x, y = jax.random.normal(keys[0], (3, 40, 2)), 1 + jax.random.normal(keys[1], (3, 40, 2))
    a, b = (jnp.exp(jax.random.normal(k, (3, 40))) for k in keys[2:])
    return x, y, a / a.sum(axis=1, keepdims=True), b / b.sum(axis=1, keepdims=True)


def model_of(problem, kind, key, width=6):
    """A finite or a limit model of the initial law of a problem (objective, encoder, law)."""
    _, encoder, law = problem
    if kind == "finite":
        return wgf.Transformer(encoder, law.layered(3, width, key))
    return wgf.AveragedODE(encoder, law.spectral(2, width, key), steps=2)


def random_chain(seed, states, order):
    """A chain whose laws are uniform on the simplex."""
    return wgf.prompts.MarkovChain(np.random.default_rng(seed).dirichlet(np.ones(states), size=(states,) * order))


def residual_problem(
    seed, *, depth=1, residual=True, length=4, prompts=1, temperature=2.0, dim=6, hidden=12, **options
):
    """A square loss, and a residual Transformer."""
    keys = jax.random.split(jax.random.key(seed), 3)
    shape = (prompts, length, dim)
    loss = SquareLoss(jax.random.normal(keys[0], shape), jax.random.normal(keys[1], shape), temperature)
    return loss, ResidualTransformer(dim, hidden, depth=depth, residual=residual, key=keys[2], **options)


def check_texts(figure):
    """Draw a figure: each of its texts has at least 9 points at the size at which it is saved."""
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    assert len(texts) > 10
    small = [(text.get_text(), text.get_fontsize()) for text in texts if text.get_fontsize() < 9]
    assert not small
