"""The library's side of the exact truths: encoders as a user writes them, and models of the truths' shapes."""

import math
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _truths import Particles, PlainTransformer
from jaxtyping import Array, Float

import wgf
from wgf.encoders import AbstractEncoder, Average, Head, KernelAttention, Pair, Perceptron, SoftmaxAttention

DECAY = 1e-2


def attention_problem(seed: int = 0) -> tuple[wgf.Objective, wgf.Transformer, PlainTransformer]:
    """A Transformer of three layers of two heads and neurons on regression prompts, all weights unequal; its twin."""
    keys = jax.random.split(jax.random.key(seed), 3)
    base = wgf.prompts.linear_regression(keys[0], batch=5, examples=3, dim=2, positions=0)
    shares = jnp.arange(1.0, 6.0) / 15
    prompts = wgf.prompts.Prompts(base.tokens, base.labels, label_row=base.label_row, weights=shares)
    encoder = Average(SoftmaxAttention(3, key_dim=2), Perceptron(3, jnp.tanh))
    masses = jnp.array([[0.3, 0.7], [0.5, 0.5], [0.8, 0.2]])
    model = wgf.Transformer(encoder, wgf.measures.Layered(encoder.sample(keys[1], (3, 2)), masses))
    twin = PlainTransformer(np.asarray(prompts.tokens), np.asarray(prompts.weights), np.asarray(masses))
    return wgf.Objective(prompts, DECAY), model, twin


def plain(particles: Pair) -> Particles:
    """The particles of heads and neurons as a dictionary of NumPy arrays."""
    return {name: np.asarray(leaf) for part in (particles.f, particles.h) for name, leaf in part._asdict().items()}


def difference(a: Particles, b: Particles) -> float:
    """The greatest difference, relative to the greatest entry of the second."""
    return max(np.abs(a[name] - b[name]).max() for name in b) / max(np.abs(leaf).max() for leaf in b.values())


class OnSphere(AbstractEncoder):
    r"""Softmax attention projected on the tangent space of the unit sphere at each token,
    \( g(T, \theta)_n = (I - T_n T_n^\top) f(T, \theta)_n \).
    """

    attention: SoftmaxAttention

    def sample(self, key, shape):
        """Draw heads."""
        return self.attention.sample(key, shape)

    def __call__(self, particle, tokens):
        """Apply a head, then project."""
        moved = self.attention(particle, tokens)
        return moved - tokens * jnp.sum(tokens * moved, axis=0, keepdims=True)


def sphere_law(dim: int, beta: float, end: float, depth: int) -> wgf.measures.Layered:
    """Equal layers of one head with scores β⟨x, y⟩ and V = `end` I: depth 1 is then the time `end`."""
    root = math.sqrt(beta * math.sqrt(dim)) * jnp.eye(dim)
    head = Head(end * jnp.eye(dim), root, root)
    return wgf.measures.Layered(jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (depth, 1, *leaf.shape)), head))


def sphere(dim: int, beta: float, end: float, steps: int) -> wgf.AveragedODE:
    """The limit model, by Dopri8."""
    encoder = OnSphere(SoftmaxAttention(dim, key_dim=dim))
    return wgf.AveragedODE(encoder, sphere_law(dim, beta, end, 1), solver=diffrax.Dopri8(), steps=steps)


class MergedHead(NamedTuple):
    """A head whose key and query matrix are one product, U = Kᵀ Q."""

    value: Float[Array, "*shape token_dim token_dim"]
    product: Float[Array, "*shape token_dim token_dim"]


class Merged(AbstractEncoder):
    """The library's linear attention with K = I: a head is (V, U)."""

    attention: KernelAttention

    def sample(self, key, shape):
        """Draw V and U."""
        head = self.attention.sample(key, shape)
        return MergedHead(head.value, head.query)

    def __call__(self, particle, tokens):
        """Apply one head."""
        eye = jnp.eye(len(tokens), dtype=tokens.dtype)
        return self.attention(Head(particle.value, eye, particle.product), tokens)


def linear_constant(dim: int, examples: int, key_dim: int) -> float:
    """C = N/((N + 1) √k): the library divides by N + 1 and √k, the estimator by N."""
    return examples / ((examples + 1) * math.sqrt(key_dim))


def merged_model(dim: int, examples: int, starts: np.ndarray) -> wgf.Transformer:
    """One layer of balanced merged heads, v = √d u and c v u = `starts`."""
    size = dim + 1
    u = np.sqrt(starts / (linear_constant(dim, examples, size) * math.sqrt(dim)))
    value, product = np.zeros((2, 1, len(starts), size, size))
    value[0, :, dim, dim] = math.sqrt(dim) * u
    product[0, :, range(dim), range(dim)] = u
    encoder = Merged(KernelAttention(size, key_dim=size))
    return wgf.Transformer(encoder, wgf.measures.Layered(MergedHead(jnp.asarray(value), jnp.asarray(product))))


def sampled_scales(keys: Array, count: int, most: int, sizes: tuple[int, int], start: float, tau: float) -> np.ndarray:
    """The scale at `tau` of one merged head, trained on `count` prompts of the library, for each key.

    Prompts are drawn in a fixed number `most`, the rest with weight 0: all counts share one compiled program.
    """
    model = merged_model(*sizes, np.array([start]))
    return merged_scales(_trained(keys, jnp.asarray(count), int(most), sizes, model, jnp.asarray(tau)), *sizes)[:, 0, 0]


@eqx.filter_jit
def _trained(keys: Array, count: Array, most: int, sizes: tuple[int, int], model: wgf.Transformer, tau: Array):
    dim, examples = sizes

    def train(key):
        prompts = wgf.prompts.linear_regression(
            key, batch=most, examples=examples, dim=dim, inputs="gaussian", positions=0
        )
        weights = jnp.where(jnp.arange(most) < count, 1 / count, 0.0)
        prompts = wgf.prompts.Prompts(prompts.tokens, prompts.labels, label_row=dim, weights=weights)
        flow = wgf.flow(wgf.Objective(prompts), model, jnp.stack([0.0 * tau, tau]), rtol=1e-5, atol=1e-7, throw=False)
        return flow.model_at(-1).measure.particles

    return jax.vmap(train)(keys)


def merged_scales(heads: MergedHead, dim: int, examples: int) -> np.ndarray:
    """The scale a = c v tr(U)/d of each head, any leading axes."""
    corner = np.asarray(heads.product)[..., :dim, :dim]
    constant = linear_constant(dim, examples, dim + 1)
    return constant * np.asarray(heads.value)[..., dim, dim] * np.trace(corner, axis1=-2, axis2=-1) / dim


def split_model(dim: int, examples: int, start: float) -> wgf.Transformer:
    """One layer of one balanced head of the library, q = k, v = √d q and c v k q = `start`."""
    size, root = dim + 1, math.sqrt(dim)
    q = np.cbrt(start / (linear_constant(dim, examples, dim) * root))
    value, key = np.zeros((1, 1, size, size)), np.zeros((1, 1, dim, size))
    value[..., dim, dim] = root * q
    key[..., range(dim), range(dim)] = q
    encoder = KernelAttention(size, key_dim=dim)
    return wgf.Transformer(encoder, wgf.measures.Layered(Head(jnp.asarray(value), jnp.asarray(key), jnp.asarray(key))))


def split_scales(heads: Head, dim: int, examples: int) -> np.ndarray:
    """The scale a = c v tr(Kᵀ Q)/d of each head, any leading axes."""
    key, query = (np.asarray(leaf)[..., :dim] for leaf in (heads.key, heads.query))
    constant = linear_constant(dim, examples, key.shape[-2])
    return constant * np.asarray(heads.value)[..., dim, dim] * np.einsum("...ki,...ki->...", key, query) / dim


def cloud_law(value: np.ndarray, product: np.ndarray) -> wgf.measures.Layered:
    """One head with V and scores xᵀ A y + w on tokens (x, w, 1): w is the log of the weight of a key.

    The rows w and 1 do not move.
    """
    dim = len(value)
    size = dim + 2
    values, keys, queries = np.zeros((size, size)), np.eye(dim + 1, size), np.zeros((dim + 1, size))
    values[:dim, :dim] = value
    queries[:dim, :dim] = product * math.sqrt(dim + 1)
    queries[dim, dim + 1] = math.sqrt(dim + 1)
    return wgf.measures.Layered(Head(*(jnp.asarray(leaf[None, None]) for leaf in (values, keys, queries))))


def cloud(value: np.ndarray, product: np.ndarray, steps: int) -> wgf.AveragedODE:
    """The limit model of weighted tokens, by Dopri8."""
    dim = len(value)
    encoder = SoftmaxAttention(dim + 2, key_dim=dim + 1)
    return wgf.AveragedODE(encoder, cloud_law(value, product), solver=diffrax.Dopri8(), steps=steps)


def weighted(points: np.ndarray, weights: np.ndarray) -> Array:
    """Tokens (x, log weight, 1), any leading axes."""
    weights = np.broadcast_to(np.log(weights), points[..., :1, :].shape)
    return jnp.asarray(np.concatenate([points, weights, np.ones_like(weights)], axis=-2))
