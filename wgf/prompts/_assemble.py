"""Stacking inputs, labels and positional encodings into prompts."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import at_least, check_memory
from ._prompts import Prompts


def positional_encoding(dim: int, length: int) -> Float[Array, "dim length"]:
    r"""Points on circles, \( (\cos 2\pi k i/\ell, \sin 2\pi k i/\ell)_{k = 1, \dots, d_{pos}/2} \) at i = 0…ℓ−1.

    Distinct positions have distinct encodings, as the universality argument of arXiv:2410.23610 requires.
    """
    dim = check_positions(dim)
    check_memory(positions=dim, length=length)
    angles = 2 * np.pi * np.arange(1, dim // 2 + 1)[:, None] * np.arange(length) / length
    waves = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return jnp.asarray(waves.reshape(dim, length), jnp.result_type(float))


def check_positions(positions: int) -> int:
    """Return the rows of an encoding; raise `ValueError` unless they are an even number."""
    if (rows := at_least("positions", positions, 0)) % 2:
        raise ValueError(f"`positions` must be even (a cosine and a sine for each frequency); got {rows}.")
    return rows


def assemble(inputs: Float[Array, "batch dim length"], labels: Float[Array, "batch length"], positions: int) -> Prompts:
    """Stack `[x; y; p]` into tokens, with the query's y hidden (set to 0) and kept as the label."""
    batch, dim, length = inputs.shape
    encoding = positional_encoding(positions, length)
    check_memory(each=(dim + 1 + len(encoding)) * length, batch=batch)
    tokens, hidden = _stack(inputs, labels, encoding)
    return Prompts(tokens, hidden, label_row=inputs.shape[1])


@jax.jit
def _stack(
    inputs: Float[Array, "batch dim length"], labels: Float[Array, "batch length"], encoding: Array
) -> tuple[Float[Array, "batch token_dim length"], Float[Array, " batch"]]:
    encodings = jnp.broadcast_to(encoding.astype(inputs.dtype), (inputs.shape[0], *encoding.shape))
    tokens = jnp.concatenate([inputs, labels.at[:, -1].set(0)[:, None], encodings], axis=1)
    return tokens, labels[:, -1]
