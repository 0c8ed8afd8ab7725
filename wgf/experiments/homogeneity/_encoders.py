"""The encoders that `wgf homogeneity` compares."""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ... import encoders
from ...encoders import (
    AbstractEncoder,
    AbstractOddEncoder,
    Average,
    Banded,
    Causal,
    Convolution,
    Intersection,
    KernelAttention,
    LayerNorm,
    Neuron,
    Perceptron,
    SoftmaxAttention,
)


@dataclass(frozen=True)
class Specimen:
    """A named encoder. The encoders of a group differ in one part."""

    group: str
    name: str
    encoder: AbstractEncoder


class BoundedNeuron(AbstractOddEncoder):
    r"""A neuron whose output weights saturate, \( h(T, \theta) = \tanh(w_{out})\,\tanh(w_{in}^\top T) \).

    It is not homogeneous in any parameter: the control, which breaks the theory's assumption. The reflection is
    w_out → −w_out.
    """

    token_dim: int = eqx.field(static=True)

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Neuron:
        """Draw standard normal neurons with leading axes `shape`."""
        return Perceptron(self.token_dim, use_bias=False).sample(key, shape)

    def __call__(self, particle: Neuron, tokens: Array) -> Array:
        """Apply one neuron to one prompt."""
        return jnp.tanh(particle.w_out)[:, None] * jnp.tanh(particle.w_in @ tokens)[None]

    def reflect(self, particle: Neuron) -> Neuron:
        """Flip the sign of the output weights."""
        return particle._replace(w_out=-particle.w_out)


def squared_relu(x: Array) -> Array:
    r"""\( \max(x, 0)^2 \)."""
    return jax.nn.relu(x) ** 2


def identity(x: Array) -> Array:
    """No activation."""
    return x


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "ReLU": jax.nn.relu,
    "squared ReLU": squared_relu,
    "GELU": jax.nn.gelu,
    "SiLU": jax.nn.silu,
    "ELU": jax.nn.elu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "identity": identity,
}
KERNELS = {
    "ReLU": encoders.relu_kernel,
    "linear": encoders.linear_kernel,
    "sigmoid": encoders.sigmoid_kernel,
    "Gaussian": encoders.gaussian_kernel,
}


def specimens(token_dim: int, key_dim: int) -> tuple[Specimen, ...]:
    """All encoders: neurons by activation, heads by kernel, and blocks g = ½ (f + h) by architecture.

    Neurons have no bias, so that their homogeneity is that of the activation. The positional encoding acts as a bias.
    """
    softmax = SoftmaxAttention(token_dim, key_dim=key_dim)
    neuron = Perceptron(token_dim, jnp.tanh, use_bias=False)
    heads = {"softmax": softmax} | {
        name: KernelAttention(token_dim, key_dim=key_dim, kernel=kernel) for name, kernel in KERNELS.items()
    }
    neurons = {name: Perceptron(token_dim, sigma, use_bias=False) for name, sigma in ACTIVATIONS.items()}
    groups = {
        "neuron": {**neurons, "bounded tanh": BoundedNeuron(token_dim)},
        "head": heads,
        "block": {
            "softmax + tanh": Average(softmax, neuron),
            "linear attention": Average(heads["linear"], neuron),
            "causal": Average(_masked(token_dim, key_dim, Causal()), neuron),
            "local": Average(_masked(token_dim, key_dim, Banded(1)), neuron),
            "causal + local": Average(_masked(token_dim, key_dim, Intersection(Causal(), Banded(1))), neuron),
            "convolution": Average(softmax, Convolution(token_dim, reach=1)),
            "LayerNorm": Average(LayerNorm(softmax, epsilon=1e-2), LayerNorm(neuron, epsilon=1e-2)),
        },
    }
    return tuple(Specimen(group, name, e) for group, members in groups.items() for name, e in members.items())


def _masked(token_dim: int, key_dim: int, mask: encoders.AbstractMask) -> SoftmaxAttention:
    return SoftmaxAttention(token_dim, key_dim=key_dim, mask=mask)
