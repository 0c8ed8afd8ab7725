"""An encoder whose mean is computed in chunks of a given size."""

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._backend.chunks import mean_in_chunks
from .._backend.compiled import compiled
from .._checks import ENCODER, at_least, instance
from ._base import AbstractEncoder, AbstractFusedEncoder, AbstractOddEncoder, Batch, Tokens, reflect


class Chunked(AbstractFusedEncoder, AbstractOddEncoder):
    r"""The same encoder, with so many particles and prompts at once in every mean and its gradient.

    \( \sum_j a_j \, g(T_b, \theta_j) \) is added up chunk by chunk, and made again chunk by chunk in the backward pass:
    memory stays that of one chunk, for one more forward evaluation. Encoders without a fused mean are computed in
    chunks of automatic size anyway, and those with one in tiles of their own; this sets the size by hand, for an
    encoder whose arrays inside are far larger than its output.

    **Arguments:**

    - `encoder`: g, any encoder.
    - `particles`, `prompts`: the most of each in a chunk; default None, from the sizes: on a CPU so that a chunk's
      arrays lie in its second-level cache. Good values: 16 to 256 particles.

    **Raises:** `ValueError` if a number is below 1; from `reflect`, if the encoder has no reflection.
    """

    encoder: AbstractEncoder
    particles: int | None = eqx.field(static=True)
    prompts: int | None = eqx.field(static=True)

    def __init__(self, encoder: AbstractEncoder, *, particles: int | None = None, prompts: int | None = None):
        self.encoder = instance("encoder", encoder, AbstractEncoder, ENCODER)
        self.particles = None if particles is None else at_least("particles", particles, 1)
        self.prompts = None if prompts is None else at_least("prompts", prompts, 1)

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> PyTree[Array]:
        """Draw particles of the encoder."""
        return self.encoder.sample(key, shape)

    def __call__(self, particle: PyTree[Array], tokens: Tokens) -> Tokens:
        """Apply the encoder."""
        return self.encoder(particle, tokens)

    @compiled
    def fused_mean(self, particles: PyTree[Array], weights: Float[Array, " width"], tokens: Batch) -> Batch:
        """Add up the encoder's means over chunks."""
        return mean_in_chunks(
            self.encoder.mean, particles, weights, tokens, most_particles=self.particles, most_prompts=self.prompts
        )

    def reflect(self, particle: PyTree[Array]) -> PyTree[Array]:
        """Reflect the particle as the encoder does."""
        return reflect(self.encoder, particle)
