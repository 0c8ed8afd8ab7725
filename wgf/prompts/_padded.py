"""Prompts of different lengths, filled up to one."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import ArrayLike

from .._checks import at_least, check_memory, floats, shown
from ._prompts import Prompts


def pad_prompts(
    tokens: Sequence[ArrayLike],
    labels: ArrayLike,
    *,
    label_row: int,
    weights: ArrayLike | None = None,
) -> Prompts:
    """Prompts of different lengths: zeros are put before the first token, and a last row tells tokens from padding.

    The last row is 1 at tokens and 0 at padding. [`wgf.encoders.PaddedAttention`][] does not see padding. The query
    stays the last column.

    **Arguments:**

    - `tokens`: one array `[D, N_b + 1]` for each prompt, of one D.
    - `labels`, `label_row`, `weights`: as of [`wgf.prompts.Prompts`][]. Labels of positions, `[B, N+1]`, belong to the
      columns of the filled prompts.

    **Returns:** prompts with tokens `[B, D + 1, N + 1]`, where N + 1 is the greatest length.

    **Raises:** `ValueError` if `tokens` is not a list of such arrays, and as `Prompts` does.
    """
    if isinstance(tokens, str) or not isinstance(tokens, Sequence) or not tokens:
        raise ValueError(f"`tokens` must be a list of arrays [D, N_b + 1], one for each prompt; got {shown(tokens)}.")
    arrays = [floats("tokens", each) for each in tokens]
    if any(each.ndim != 2 or each.shape[0] != arrays[0].shape[0] for each in arrays):
        shapes = [each.shape for each in arrays]
        raise ValueError(f"`tokens` must hold arrays [D, N_b + 1] of one D; got the shapes {shown(shapes)}.")
    dim, longest = at_least("token_dim", arrays[0].shape[0], 1), max(each.shape[1] for each in arrays)
    check_memory(each=(dim + 1) * longest, prompts=len(arrays))
    filled = [
        jnp.pad(jnp.concatenate([each, jnp.ones_like(each[:1])]), ((0, 0), (longest - each.shape[1], 0)))
        for each in arrays
    ]
    return Prompts(jnp.stack(filled), labels, label_row=label_row, weights=weights)
