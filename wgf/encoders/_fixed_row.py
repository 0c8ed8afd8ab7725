"""An encoder that leaves a row of the tokens as it is."""

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._checks import ENCODER, at_least, instance
from ._base import AbstractEncoder, AbstractFusedEncoder, Batch, Tokens


class FixedRow(AbstractFusedEncoder):
    r"""An encoder without its output in one row, \( (I - e_r e_r^\top)\,g(T, \theta) \): row r is the same at all
    depths.

    It keeps what a row says of the tokens, e.g. which of them are padding, see [`wgf.encoders.PaddedAttention`][].

    **Arguments:**

    - `encoder`: g, any encoder.
    - `row`: r, a row of a token.

    **Raises:** `ValueError` if `encoder` is not an encoder or `row` is negative; when applied, if the tokens have no
    such row. `reflect` raises it if the inner encoder has no reflection.

    Cost: that of the inner encoder.
    """

    encoder: AbstractEncoder
    row: int = eqx.field(static=True)

    def __init__(self, encoder: AbstractEncoder, *, row: int):
        self.encoder = instance("encoder", encoder, AbstractEncoder, ENCODER)
        self.row = at_least("row", row, 0)

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> PyTree[Array]:
        """Draw particles of the inner encoder."""
        return self.encoder.sample(key, shape)

    def __call__(self, particle: PyTree[Array], tokens: Tokens) -> Tokens:
        """Apply the inner encoder to one prompt."""
        return self.encoder(particle, tokens).at[self._row_of(tokens.shape[0])].set(0)

    def fused_mean(self, particles: PyTree[Array], weights: Float[Array, " width"], tokens: Batch) -> Batch:
        """Take the inner encoder's mean in its fastest form."""
        return self.encoder.mean(particles, weights, tokens).at[:, self._row_of(tokens.shape[1])].set(0)

    def _row_of(self, token_dim: int) -> int:
        if self.row >= token_dim:
            raise ValueError(f"`row` must be a row of the tokens, 0 to {token_dim - 1}; got {self.row}.")
        return self.row

    @property
    def is_odd(self) -> bool:
        """Whether the inner encoder is odd."""
        return self.encoder.is_odd

    def reflect(self, particle: PyTree[Array]) -> PyTree[Array]:
        """Reflect the particle as the inner encoder does."""
        return self.encoder.reflect(particle)
