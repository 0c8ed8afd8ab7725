"""The zoo of small problems that the tests share."""

import jax
import jax.numpy as jnp

import wgf
from wgf.encoders import AbstractEncoder


class Matrix(AbstractEncoder):
    """The linear encoder h(T, W) = W T, whose flow has a closed form; the particle is the bare array W."""

    token_dim: int

    def sample(self, key, shape):
        return jax.random.normal(key, (*shape, self.token_dim, self.token_dim))

    def __call__(self, particle, tokens):
        return particle @ tokens


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
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    return float(max(jnp.max(jnp.abs(x - y)) for x, y in pairs) / max(jnp.max(jnp.abs(y)) for _, y in pairs))
