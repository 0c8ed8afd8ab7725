"""Attention with a kernel in place of the softmax: one particle is one head."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import at_least, check_memory, shown
from .._random import purpose
from ._attention import Head
from ._base import AbstractOddEncoder, Tokens
from ._checks import leading_axes

Kernel = Callable[[Float[Array, "key_dim keys"], Float[Array, "key_dim queries"]], Float[Array, "keys queries"]]


def linear_kernel(keys: Float[Array, "key_dim keys"], queries: Float[Array, "key_dim queries"]) -> Array:
    r"""\( \kappa(k, q) = k^\top q / \sqrt{d_k} \): linear attention."""
    return keys.T @ queries / math.sqrt(keys.shape[0])


def relu_kernel(keys: Float[Array, "key_dim keys"], queries: Float[Array, "key_dim queries"]) -> Array:
    r"""\( \kappa(k, q) = \max(k^\top q / \sqrt{d_k}, 0) \)."""
    return jax.nn.relu(linear_kernel(keys, queries))


def sigmoid_kernel(keys: Float[Array, "key_dim keys"], queries: Float[Array, "key_dim queries"]) -> Array:
    r"""\( \kappa(k, q) = 1 / (1 + e^{-k^\top q / \sqrt{d_k}}) \)."""
    return jax.nn.sigmoid(linear_kernel(keys, queries))


def gaussian_kernel(keys: Float[Array, "key_dim keys"], queries: Float[Array, "key_dim queries"]) -> Array:
    r"""\( \kappa(k, q) = e^{-\|k - q\|^2 / (2 \sqrt{d_k})} \)."""
    squares = jnp.sum((keys[:, :, None] - queries[:, None, :]) ** 2, axis=0)
    return jnp.exp(-squares / (2 * math.sqrt(keys.shape[0])))


class KernelAttention(AbstractOddEncoder):
    r"""A self-attention head with a kernel, \( f(T, \theta)_{:,n} = \frac{1}{N+1} \sum_j V T_j \, \kappa(K T_j, Q T_n)
    \).

    The mean over keys replaces the normalisation of the softmax, so outputs stay of order one as prompts grow.

    **Arguments:**

    - `token_dim`: the dimension D of a token.
    - `key_dim`: the dimension d_k of keys and queries.
    - `kernel`: κ, for all keys and queries of a prompt at once: [`wgf.encoders.linear_kernel`][], `relu_kernel`,
      `sigmoid_kernel`, `gaussian_kernel`, or any function of `[d_k, keys]` and `[d_k, queries]`.

    Particles are [`wgf.encoders.Head`][]s. The reflection is V → −V. The encoder is 1-homogeneous in V for any kernel,
    and also in K and in Q for the linear kernel.

    **Raises:** `ValueError` if a dimension is below 1 or the kernel is not a function.
    """

    token_dim: int = eqx.field(static=True)
    key_dim: int = eqx.field(static=True)
    kernel: Kernel = eqx.field(static=True)

    def __init__(self, token_dim: int, *, key_dim: int, kernel: Kernel = linear_kernel):
        self.token_dim = at_least("token_dim", token_dim, 1)
        self.key_dim = at_least("key_dim", key_dim, 1)
        check_memory(each=self.token_dim, token_dim=self.token_dim)
        check_memory(token_dim=self.token_dim, key_dim=self.key_dim)
        if not callable(kernel):
            raise ValueError(f"`kernel` must be a function, e.g. wgf.encoders.linear_kernel; got {shown(kernel)}.")
        self.kernel = kernel

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Head:
        """Draw standard normal heads with leading axes `shape`."""
        shape = leading_axes("shape", shape)
        keys = jax.random.split(purpose(key, "encoders.KernelAttention"), 3)
        square, wide = (self.token_dim, self.token_dim), (self.key_dim, self.token_dim)
        return Head(*(jax.random.normal(k, (*shape, *s)) for k, s in zip(keys, (square, wide, wide), strict=True)))

    def __call__(self, particle: Head, tokens: Tokens) -> Tokens:
        """Apply one head to one prompt."""
        kernel = self.kernel(particle.key @ tokens, particle.query @ tokens)
        return particle.value @ tokens @ kernel / tokens.shape[1]

    def reflect(self, particle: Head) -> Head:
        """Flip the sign of the value matrix."""
        return particle._replace(value=-particle.value)
