"""Softmax self-attention on prompts of different lengths."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray

from .._checks import at_least
from ._attention import Head, SoftmaxAttention
from ._base import AbstractOddEncoder, Tokens
from ._mask import AbstractMask


class PaddedAttention(AbstractOddEncoder):
    r"""[`wgf.encoders.SoftmaxAttention`][] in which padding is not seen.

    Prompts of different lengths are filled up to one length, and a row of the tokens is 1 at tokens and 0 at padding
    ([`wgf.prompts.pad_prompts`][] makes both). A query sees no key where that row is 0. The output is 0 in that row, so
    it stays as it is at all depths. Give the same row to [`wgf.encoders.FixedRow`][] around the other encoders.

    ```python
    prompts = wgf.prompts.pad_prompts(tokens, labels, label_row=2)
    dim, row = prompts.token_dim, prompts.token_dim - 1
    encoder = wgf.encoders.Average(
        wgf.encoders.PaddedAttention(dim, key_dim=2, row=row),
        wgf.encoders.FixedRow(wgf.encoders.Perceptron(dim), row=row),
    )
    ```

    **Arguments:**

    - `token_dim`, `key_dim`, `mask`: as of `SoftmaxAttention`. A query that `mask` leaves nothing but padding sees
      itself.
    - `row`: the row of a token that tells tokens from padding.

    Particles are [`wgf.encoders.Head`][]s. The reflection is V → −V.

    **Raises:** `ValueError` if `row` is not a row of a token, and as `SoftmaxAttention` does.

    Cost of a mean: that of `SoftmaxAttention` without its fused form, which takes masks of positions alone.

    **Source:** arXiv:2410.23610, section 2.2.
    """

    attention: SoftmaxAttention
    row: int = eqx.field(static=True)

    def __init__(self, token_dim: int, *, key_dim: int, row: int, mask: AbstractMask | None = None):
        self.attention = SoftmaxAttention(token_dim, key_dim=key_dim, mask=mask)
        self.row = at_least("row", row, 0, token_dim - 1)

    @property
    def token_dim(self) -> int:
        """The dimension D of a token."""
        return self.attention.token_dim

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Head:
        """Draw standard normal heads with leading axes `shape`."""
        return self.attention.sample(key, shape)

    def __call__(self, particle: Head, tokens: Tokens) -> Tokens:
        """Apply one head to one prompt."""
        scores = (particle.key @ tokens).T @ (particle.query @ tokens) / math.sqrt(self.attention.key_dim)
        weights = jax.nn.softmax(jnp.where(self._seen(tokens), scores, -jnp.inf), axis=0)
        return (particle.value @ tokens @ weights).at[self.row].set(0)

    def _seen(self, tokens: Tokens) -> Bool[Array, "keys queries"]:
        length = tokens.shape[1]
        seen = jnp.broadcast_to((tokens[self.row] > 0.5)[:, None], (length, length))
        if self.attention.mask is not None:
            seen &= self.attention.mask(length)
        return seen | (jnp.eye(length, dtype=bool) & ~jnp.any(seen, axis=0)[None])

    def reflect(self, particle: Head) -> Head:
        """Flip the sign of the value matrix."""
        return self.attention.reflect(particle)
