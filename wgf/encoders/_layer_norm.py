"""Layer normalisation in front of an encoder."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._checks import ENCODER, instance, positive
from ._base import AbstractEncoder, AbstractFusedEncoder, Batch, Tokens


class LayerNorm(AbstractFusedEncoder):
    r"""An encoder of normalised tokens, \( g(\mathrm{LN}(T), \theta) \) with
    \( \mathrm{LN}(x) = (x - \bar x) / \sqrt{\mathrm{var}(x) + \epsilon} \) (pre-norm, without scale and shift).

    **Arguments:**

    - `encoder`: g, any encoder.
    - `epsilon`: ε > 0, which keeps the result finite for a token whose entries are equal. Good values: 1e-6 to 1e-2.

    The result is bounded in the tokens for any g: its growth exponent in T is 0.

    **Raises:** `ValueError` if ε is not positive. `reflect` raises it if the inner encoder has no reflection.

    **Source:** J. L. Ba, J. R. Kiros, G. E. Hinton, *Layer normalization*, arXiv:1607.06450.
    """

    encoder: AbstractEncoder
    epsilon: float = eqx.field(static=True)

    def __init__(self, encoder: AbstractEncoder, *, epsilon: float = 1e-5):
        self.encoder = instance("encoder", encoder, AbstractEncoder, ENCODER)
        self.epsilon = float(positive("epsilon", epsilon))

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> PyTree[Array]:
        """Draw particles of the inner encoder."""
        return self.encoder.sample(key, shape)

    def __call__(self, particle: PyTree[Array], tokens: Tokens) -> Tokens:
        """Normalise one prompt, then apply the inner encoder."""
        return self.encoder(particle, jax.nn.standardize(tokens, axis=0, epsilon=self.epsilon))

    def fused_mean(self, particles: PyTree[Array], weights: Float[Array, " width"], tokens: Batch) -> Batch:
        """Normalise every prompt once, then take the inner encoder's mean in its fastest form."""
        return self.encoder.mean(particles, weights, jax.nn.standardize(tokens, axis=1, epsilon=self.epsilon))

    @property
    def is_odd(self) -> bool:
        """Whether the inner encoder is odd."""
        return self.encoder.is_odd

    def reflect(self, particle: PyTree[Array]) -> PyTree[Array]:
        """Reflect the particle as the inner encoder does."""
        return self.encoder.reflect(particle)
