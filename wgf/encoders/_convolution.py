"""A perceptron that sees neighbouring tokens: one particle is one convolutional neuron."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import at_least, check_memory, shown
from .._random import purpose
from ._base import AbstractOddEncoder, Tokens
from ._checks import leading_axes


class ConvolutionalNeuron(NamedTuple):
    """The parameters of one convolutional neuron: P = (2r + 2) D + 1 numbers."""

    w_in: Float[Array, "*shape token_dim window"]
    w_out: Float[Array, "*shape token_dim"]
    bias: Float[Array, "*shape"]


class Convolution(AbstractOddEncoder):
    r"""One neuron over a window of tokens, \( h(T, \theta)_{:,n} = w_{out}\, \sigma\big(\sum_{|s| \le r} w_s^\top
    T_{n+s} + b\big) \), with zeros beyond the ends.

    **Arguments:**

    - `token_dim`: the dimension D of a token.
    - `reach`: r ≥ 0; the window has 2r + 1 tokens. With r = 0 it is [`wgf.encoders.Perceptron`][].
    - `activation`: σ, an elementwise function of arrays.

    Particles are [`wgf.encoders.ConvolutionalNeuron`][]s, 1-homogeneous in w_out; the reflection is w_out → −w_out.

    **Raises:** `ValueError` if D is below 1, r is below 0 or the activation is not a function.
    """

    token_dim: int = eqx.field(static=True)
    reach: int = eqx.field(static=True)
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(self, token_dim: int, *, reach: int = 1, activation: Callable[[Array], Array] = jnp.tanh):
        self.token_dim = at_least("token_dim", token_dim, 1)
        self.reach = at_least("reach", reach, 0)
        check_memory(token_dim=self.token_dim, reach=2 * self.reach + 1)
        if not callable(activation):
            raise ValueError(f"`activation` must be a function of an array, e.g. jnp.tanh; got {shown(activation)}.")
        self.activation = activation

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> ConvolutionalNeuron:
        """Draw standard normal neurons with leading axes `shape`."""
        shape = leading_axes("shape", shape)
        in_key, out_key, bias_key = jax.random.split(purpose(key, "encoders.Convolution"), 3)
        return ConvolutionalNeuron(
            jax.random.normal(in_key, (*shape, self.token_dim, 2 * self.reach + 1)),
            jax.random.normal(out_key, (*shape, self.token_dim)),
            jax.random.normal(bias_key, shape),
        )

    def __call__(self, particle: ConvolutionalNeuron, tokens: Tokens) -> Tokens:
        """Apply one neuron to one prompt."""
        # A product, not a JAX convolution: on a GPU, XLA computes convolutions in TF32 at any requested precision.
        length = tokens.shape[1]
        padded = jnp.pad(tokens, ((0, 0), (self.reach, self.reach)))
        windows = jnp.stack([padded[:, start : start + length] for start in range(2 * self.reach + 1)], axis=1)
        filtered = jnp.einsum("ds,dsn->n", particle.w_in, windows)
        return particle.w_out[:, None] * self.activation(filtered + particle.bias)[None]

    def reflect(self, particle: ConvolutionalNeuron) -> ConvolutionalNeuron:
        """Flip the sign of the output weights."""
        return particle._replace(w_out=-particle.w_out)
