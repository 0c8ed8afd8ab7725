"""Next-token prediction on a Markov chain, as prompts of one-hot tokens."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._checks import at_least, check_memory, instance, numbered
from .._random import purpose
from ._assemble import positional_encoding
from ._markov import MarkovChain
from ._prompts import Prompts


def next_tokens(
    key: PRNGKeyArray, chain: MarkovChain, *, batch: int, length: int, workspace: int = 0, positions: int = 2
) -> Prompts:
    r"""Sequences of a chain as one-hot tokens, each labelled with its successor.

    Column n is that of [`wgf.prompts.symbol_tokens`][], and its label is \( x_{n+1} \). Logits that are read from the
    one-hot rows, by [`wgf.objective.EveryRows`][]`(0, S)`, tie the output weights to the (fixed) embedding. Logits that
    are read from the workspace, by `EveryRows(S, S)`, do not.

    **Arguments:**

    - `key`: a JAX random key.
    - `chain`: the source, [`wgf.prompts.MarkovChain`][] over S states.
    - `batch`, `length`: the number of sequences B, and the number of tokens N + 1 per sequence.
    - `workspace`, `positions`: the numbers of rows of zeros and of positional encoding.

    **Returns:** [`wgf.prompts.Prompts`][] with integer labels `[B, N+1]` and `label_row = 0`.

    **Raises:** `ValueError` if `batch` is below 1, `length` is below 2, `workspace` is negative or `positions` is odd.
    """
    key = purpose(key, "prompts.next_tokens")
    instance("chain", chain, MarkovChain, "a wgf.prompts.MarkovChain")
    batch, length = at_least("batch", batch, 1), at_least("length", length, 2)
    check_memory(each=chain.states, batch=batch, length=length)
    sequences = chain.sample(key, batch, length + 1)
    tokens = symbol_tokens(sequences[:, :-1], chain.states, workspace=workspace, positions=positions)
    return Prompts(tokens, sequences[:, 1:], label_row=0)


def symbol_tokens(
    symbols: Int[Array, "batch length"], states: int, *, workspace: int = 0, positions: int = 2
) -> Float[Array, "batch token_dim length"]:
    r"""Symbols as tokens: column n is \( (1_{x_n}, 0, p_n) \), one-hot of size S, workspace, positional encoding.

    **Arguments:**

    - `symbols`: integers 0 to `states` − 1.
    - `states`: the size S of the alphabet.
    - `workspace`: rows of zeros.
    - `positions`: rows of positional encoding (even; 0 for none). Tokens have D = S + `workspace` + `positions` rows.

    **Raises:** `ValueError` if a symbol is not one of the states, `workspace` is negative or `positions` is odd.
    """
    states = at_least("states", states, 1)
    symbols = numbered("symbols", symbols, states, "symbols")
    if symbols.ndim != 2 or 0 in symbols.shape:
        raise ValueError(f"`symbols` must have shape [B, N+1], none of them 0; got {symbols.shape}.")
    batch, length = symbols.shape
    check_memory(each=length, batch=batch, states=states)
    check_memory(each=length, workspace=at_least("workspace", workspace, 0))
    one_hot = jax.nn.one_hot(symbols, states, axis=1)
    zeros = jnp.zeros((workspace, length))
    fixed = jnp.concatenate([zeros, positional_encoding(positions, length)]).astype(one_hot.dtype)
    return jnp.concatenate([one_hot, jnp.broadcast_to(fixed, (batch, *fixed.shape))], axis=1)
