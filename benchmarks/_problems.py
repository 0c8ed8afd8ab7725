"""The problems of the verification tables, and truths for them by SciPy and NumPy.

They share no code with `wgf`, all but `flow_by_scipy`: it integrates the gradient of the library's Q.
"""

import dataclasses

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp
from scipy.special import softmax

import wgf
from wgf.encoders import AbstractEncoder

TIGHT = {"rtol": 1e-10, "atol": 1e-12}


class Matrix(AbstractEncoder):
    """The linear encoder h(T, W) = W T, whose flow has a closed form; the particle is the bare array W."""

    token_dim: int

    def sample(self, key, shape):
        """Draw standard normal matrices."""
        return jax.random.normal(key, (*shape, self.token_dim, self.token_dim))

    def __call__(self, particle, tokens):
        """Apply one matrix."""
        return particle @ tokens


@dataclasses.dataclass(frozen=True)
class Scalar:
    """Scalar tokens and h(T, w) = w T on three prompts with y = 1.7 H: the flow is a scalar ODE.

    The closed form of the limit: T(1) = e^u H with u the mean of w, du/dτ = −E[(e^u H − y) e^u H] − λ u.
    """

    decay: float = 0.02
    start: float = 0.2

    @property
    def objective(self) -> wgf.Objective:
        """Q, with the query column alone read."""
        h = jnp.array([0.5, 1.0, -0.8])
        tokens = jnp.stack([jnp.zeros(3), h], axis=1)[:, None]
        return wgf.Objective(wgf.prompts.Prompts(tokens, 1.7 * h, label_row=0), self.decay)

    def finite(self, depth: int) -> wgf.Transformer:
        """Equal particles in every layer."""
        return wgf.Transformer(Matrix(1), wgf.measures.Layered(jnp.full((depth, 2, 1, 1), self.start)))

    def limit(self) -> wgf.AveragedODE:
        """Equal particles at two nodes."""
        measure = wgf.measures.Spectral(jnp.full((2, 2, 1, 1), self.start))
        return wgf.AveragedODE(Matrix(1), measure, solver=diffrax.Dopri8(), steps=8)

    def truth(self, taus: np.ndarray) -> np.ndarray:
        """The mean of w at the given τ, by SciPy."""
        prompts = self.objective.prompts
        h, y = np.asarray(prompts.tokens[:, 0, -1]), np.asarray(prompts.labels)

        def field(tau, u):
            growth = np.exp(u[0])
            return [-np.mean((growth * h - y) * growth * h) - self.decay * u[0]]

        return solve_ivp(field, (taus[0], taus[-1]), [self.start], "DOP853", taus, rtol=1e-13, atol=1e-14).y[0]


@dataclasses.dataclass(frozen=True)
class Regression:
    """In-context linear regression by attention heads and tanh neurons, the paper's model."""

    batch: int = 16
    examples: int = 8
    width: int = 16
    decay: float = 1e-3
    scale: float = 0.7
    seed: int = 0

    @property
    def objective(self) -> wgf.Objective:
        """Q on prompts of two inputs; tokens have five rows."""
        key = jax.random.key(self.seed)
        prompts = wgf.prompts.linear_regression(key, batch=self.batch, examples=self.examples, dim=2)
        return wgf.Objective(prompts, self.decay)

    @property
    def encoder(self) -> wgf.encoders.Average:
        """The average of a head of key dimension 2 and a neuron with bias."""
        return wgf.encoders.Average(wgf.encoders.SoftmaxAttention(5, key_dim=2), wgf.encoders.Perceptron(5, jnp.tanh))

    def sample(self, seed: int = 1):
        """One sample of ρ₀ = N(0, scale²), leading axis `[width]`."""
        return wgf.measures.Gaussian(self.encoder, self.scale).sample(jax.random.key(seed), self.width)

    def at(self, depths):
        """Particles that turn smoothly from one sample to another, θ(t) = cos(2t) a + sin(2t) b, at depths `[n]`."""
        depths = jnp.asarray(depths)

        def mix(a, b):
            t = depths.reshape(-1, *(1,) * a.ndim)
            return jnp.cos(2 * t) * a + jnp.sin(2 * t) * b

        return jax.tree.map(mix, self.sample(1), self.sample(2))

    def shared(self, rows: int):
        """The same sample at every depth, leading axes `[rows, width]`."""
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (rows, *leaf.shape)), self.sample())

    def finite(self, depth: int) -> wgf.Transformer:
        """Independent samples in every layer."""
        law = wgf.measures.Gaussian(self.encoder, self.scale)
        return wgf.Transformer(self.encoder, law.layered(depth, self.width, jax.random.key(3)))

    def limit(self, nodes: int = 3, **options) -> wgf.AveragedODE:
        """One sample shared by all nodes."""
        return wgf.AveragedODE(self.encoder, wgf.measures.Spectral(self.shared(nodes)), **options)


def tokens_by_scipy(law, tokens: np.ndarray) -> np.ndarray:
    """T(1) of dT/dt = mean of g(T, θ_j(t)): encoders in NumPy, DOP853 by SciPy; `law(t)` are particles `[width]`."""

    def field(t, flat):
        particles = jax.tree.map(np.asarray, law(t))
        return encode(particles, flat.reshape(tokens.shape)).ravel()

    return solve_ivp(field, (0, 1), np.ravel(tokens), "DOP853", rtol=1e-13, atol=1e-14).y[:, -1].reshape(tokens.shape)


def encode(particles, tokens: np.ndarray) -> np.ndarray:
    """The mean of ½ (f + h) over equal weights, in NumPy."""
    head, neuron = particles
    keys = np.einsum("mki,bin->bmkn", head.key, tokens)
    queries = np.einsum("mki,bin->bmkn", head.query, tokens)
    scores = softmax(np.einsum("bmkn,bmkq->bmnq", keys, queries) / np.sqrt(head.key.shape[1]), axis=2)
    attended = np.einsum("mji,bin,bmnq->bjq", head.value, tokens, scores, optimize=True)
    hidden = np.tanh(np.einsum("mi,bin->bmn", neuron.w_in, tokens) + neuron.bias[:, None])
    return (attended + np.einsum("mi,bmn->bin", neuron.w_out, hidden)) / 2 / len(head.value)


def flow_by_scipy(objective: wgf.Objective, model, end: float, *, method: str = "DOP853", rtol: float = 1e-12):
    """The particles at τ = `end` by SciPy, on −(1/(w a)) ∂Q/∂θ by plain automatic differentiation."""
    start, unravel = ravel_pytree(model.measure.particles)
    scale, _ = ravel_pytree(_per_mass(model))
    gradient = jax.jit(jax.grad(lambda flat: objective(model.with_particles(unravel(flat)))))

    def field(tau, flat):
        return -np.asarray(gradient(flat)) * np.asarray(scale)

    solution = solve_ivp(field, (0, end), np.asarray(start), method, rtol=rtol, atol=rtol / 100)
    return unravel(jnp.asarray(solution.y[:, -1]))


def _per_mass(model):
    masses = model.measure.masses

    def expand(leaf):
        return jnp.broadcast_to((1 / masses).reshape(masses.shape + (1,) * (leaf.ndim - 2)), leaf.shape)

    return jax.tree.map(expand, model.measure.particles)


def rms(a, b) -> float:
    """The root mean square of the difference of two PyTrees of arrays."""
    flat = ravel_pytree(jax.tree.map(lambda x, y: jnp.asarray(x) - jnp.asarray(y), a, b))[0]
    return float(jnp.sqrt(jnp.mean(flat**2)))


def worst(a, b) -> float:
    """The RMS error of the worst particle, the norm of the flow's step size control; leading axes [depth, width]."""
    gap = wgf.measures.coordinates(jax.tree.map(lambda x, y: jnp.asarray(x) - jnp.asarray(y), a, b))
    return float(jnp.sqrt(jnp.mean(gap**2, axis=-1)).max())
