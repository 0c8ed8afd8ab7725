"""A perceptron applied token by token: one particle is one neuron."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._backend.compiled import compiled
from .._backend.contract import contract
from .._backend.tiles import tiled_sum
from .._checks import at_least
from .._random import purpose
from ._base import AbstractFusedEncoder, AbstractOddEncoder, Batch, Tokens


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
            raise ValueError(f"`activation` must be a function of an array, e.g. jnp.tanh; got {activation!r}.")
        self.activation = activation
        self.use_bias = use_bias

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Neuron:
        """Draw standard normal neurons with leading axes `shape`."""
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
        bias = () if particles.bias is None else (particles.bias,)
        neurons = (particles.w_in, weights[:, None] * particles.w_out, *bias)
        return tiled_sum(self._hidden, neurons, tokens, numbers=tokens.shape[2], most_particles=256)

    def _hidden(self, tokens: Float[Array, "token_dim prompts length"], neurons: tuple[Array, ...]) -> Array:
        """Sum over the neurons of one tile. Indices: d, e token entries; b prompts; n tokens; m neurons."""
        w_in, w_out, *bias = neurons
        drive = contract("dbn,dm->bnm", tokens, w_in)
        if bias:
            drive = drive + bias[0][None, None]
        return contract("em,bnm->ebn", w_out, self.activation(drive))

    def reflect(self, particle: Neuron) -> Neuron:
        """Flip the sign of the output weights."""
        return particle._replace(w_out=-particle.w_out)
