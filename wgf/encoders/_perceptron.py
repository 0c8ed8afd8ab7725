"""A perceptron applied token by token: one particle is one neuron."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._backend.compiled import compiled
from .._backend.contract import contract
from .._backend.tiles import Block, Tile, tiled_sum
from .._checks import at_least, flag, shown
from .._random import purpose
from ._base import AbstractFusedEncoder, AbstractOddEncoder, Batch, Tokens
from ._checks import leading_axes


class Neuron(NamedTuple):
    """The parameters of one neuron: P = 2D + 1 numbers, 2D without a bias."""

    w_in: Float[Array, "*shape token_dim"]
    w_out: Float[Array, "*shape token_dim"]
    bias: Float[Array, "*shape"] | None


class Perceptron(AbstractFusedEncoder, AbstractOddEncoder):
    r"""One hidden neuron, \( h(T, \theta) = w_{out} \, \sigma(w_{in}^\top T + b) \), token by token.

    **Arguments:**

    - `token_dim`: the dimension D of a token.
    - `activation`: σ, an elementwise function of arrays. Pass a named function (`jnp.tanh`, `jax.nn.gelu`): every new
      `lambda` is compiled again.
    - `use_bias`: whether neurons have a bias b. Without a bias, P = 2D.

    Particles are [`wgf.encoders.Neuron`][]s. The reflection is \( w_{out} \to -w_{out} \). The encoder is
    1-homogeneous in \( w_{out} \) for any σ.

    **Raises:** `ValueError` if D is below 1 or the activation is not a function.

    Cost of a mean: O(M B N D).

    **Source:** arXiv:2410.23610, section 2.2.
    """

    token_dim: int = eqx.field(static=True)
    activation: Callable[[Array], Array] = eqx.field(static=True)
    use_bias: bool = eqx.field(static=True)

    def __init__(self, token_dim: int, activation: Callable[[Array], Array] = jnp.tanh, *, use_bias: bool = True):
        self.token_dim = at_least("token_dim", token_dim, 1)
        if not callable(activation):
            raise ValueError(f"`activation` must be a function of an array, e.g. jnp.tanh; got {shown(activation)}.")
        self.activation = activation
        self.use_bias = flag("use_bias", use_bias)

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Neuron:
        """Draw standard normal neurons with leading axes `shape`."""
        shape = leading_axes("shape", shape)
        in_key, out_key, bias_key = jax.random.split(purpose(key, "encoders.Perceptron"), 3)
        return Neuron(
            jax.random.normal(in_key, (*shape, self.token_dim)),
            jax.random.normal(out_key, (*shape, self.token_dim)),
            jax.random.normal(bias_key, shape) if self.use_bias else None,
        )

    def __call__(self, particle: Neuron, tokens: Tokens) -> Tokens:
        """Apply one neuron to one prompt."""
        drive = particle.w_in @ tokens
        if particle.bias is not None:
            drive = drive + particle.bias
        return particle.w_out[:, None] * self.activation(drive)[None]

    @compiled
    def fused_mean(self, particles: Neuron, weights: Float[Array, " width"], tokens: Batch) -> Batch:
        """Average over neurons: a hidden layer of width M, in tiles."""
        hidden = functools.partial(_hidden, self.activation)
        tile = Tile(hidden, hidden, numbers=tokens.shape[2], most_particles=256)
        return tiled_sum(tile, (particles.w_in, weights[:, None] * particles.w_out, particles.bias), tokens)

    def reflect(self, particle: Neuron) -> Neuron:
        """Flip the sign of the output weights."""
        return particle._replace(w_out=-particle.w_out)


def _hidden(
    activation: Callable[[Array], Array],
    w_in: Float[Array, "token_dim neurons"],
    w_out: Float[Array, "token_dim neurons"],
    bias: Float[Array, " neurons"] | None,
    tokens: Block,
) -> Block:
    """The sum over the neurons of one tile. Letters: d, e token entries; b prompts; n tokens; m neurons."""
    drive = contract("dbn,dm->bnm", tokens, w_in)
    if bias is not None:
        drive = drive + bias[None, None]
    return contract("em,bnm->ebn", w_out, activation(drive))
