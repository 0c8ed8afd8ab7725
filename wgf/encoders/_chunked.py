"""An encoder whose mean is computed in chunks of a given size."""

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._backend.chunks import mean_in_chunks
from .._backend.compiled import compiled
from .._checks import ENCODER, at_least, instance
from ._base import AbstractEncoder, AbstractFusedEncoder, Batch, Tokens


class Chunked(AbstractFusedEncoder):
    r"""The same encoder, with its means and their gradients computed in chunks of particles and prompts.

    \( \sum_j a_j \, g(T_b, \theta_j) \) is added up chunk by chunk, and the backward pass recomputes each chunk.
    Encoders without a fused mean already use chunks of automatic size, and encoders with a fused mean use tiles of
    their own. Set the size here for an encoder whose inner arrays are far larger than its output.

    **Arguments:**

    - `encoder`: g, any encoder.
    - `particles`, `prompts`: the most particles and prompts per chunk. Default None: chosen from the sizes; on a CPU a
      chunk's arrays then fit in the second-level cache. Good values: 16 to 256 particles.

    **Raises:** `ValueError` if a number is below 1. `reflect` raises it if the encoder has no reflection.

    Cost: the memory of one chunk, for one more forward evaluation.
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

    @property
    def is_odd(self) -> bool:
        """Whether the inner encoder is odd."""
        return self.encoder.is_odd

    def reflect(self, particle: PyTree[Array]) -> PyTree[Array]:
        """Reflect the particle as the encoder does."""
        return self.encoder.reflect(particle)
