"""The mean of many small attention heads, fast on a CPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ._base import Batch
from ._contract import contract, isolated
from ._tiles import tiled_sum

Block = Float[Array, "token_dim prompts length"]
Seen = Bool[np.ndarray, "keys queries"]
Strip = tuple[
    Float[Array, "token_dim token_dim heads"],
    Float[Array, "token_dim key_dim heads"],
    Float[Array, "token_dim key_dim heads"],
]


def sum_of_heads(
    value: Float[Array, "heads token_dim token_dim"],
    key: Float[Array, "heads key_dim token_dim"],
    query: Float[Array, "heads key_dim token_dim"],
    tokens: Batch,
    seen: Seen | None = None,
) -> Batch:
    r"""The sum \( \sum_m V_m T_b \, \mathrm{softmax}((K_m T_b)^\top (Q_m T_b)) \) for every prompt b.

    The softmax of a query runs over the keys that it has `seen` (None: all of them), at least one. Short prompts of
    small tokens take loops along heads on a CPU; all else takes matrix products.
    """
    length = tokens.shape[2]
    strip = (value.transpose(1, 2, 0), key.transpose(2, 1, 0), query.transpose(2, 1, 0))
    looped = jax.default_backend() == "cpu" and length <= 32 and max(key.shape[1:]) < 16
    tile, most = (_by_loops, 64) if looped else (_by_products, 32)
    return tiled_sum(functools.partial(tile, seen=seen), strip, tokens, numbers=length**2, most_particles=most)


def _by_products(tokens: Block, heads: Strip, seen: Seen | None) -> Block:
    """The sum over the heads of one tile, in matrix products. Letters as in `_by_loops`."""
    value, key, query = (matrix.transpose(2, 0, 1) for matrix in heads)
    keys = jnp.einsum("dbj,mdk->bmjk", tokens, key)
    queries = jnp.einsum("dbq,mdk->bmqk", tokens, query)
    scores = jnp.einsum("bmqk,bmjk->bmqj", queries, keys)
    if seen is not None:
        scores = jnp.where(seen.T, scores, -jnp.inf)
    attention = jax.nn.softmax(scores, axis=-1)
    # All heads attend to the same tokens: one product a prompt, as tall as all heads have queries.
    b, m, q, j = attention.shape
    attended = jnp.einsum("brj,dbj->brd", attention.reshape(b, m * q, j), tokens).reshape(b, m, q, -1)
    return jnp.einsum("med,bmqd->ebq", value, attended)


def _by_loops(tokens: Block, heads: Strip, seen: Seen | None) -> Block:
    """The sum over the heads of one tile, with heads along the last axis of every array.

    Along heads the processor does the same arithmetic many times over; other axes are too short to vectorise.

    Letters: b prompts, j keys, q queries, d and e entries of a token, k entries of a key, m heads.
    """
    value, key, query = heads
    keys = contract("dbj,dkm->bjkm", tokens, key)
    queries = contract("dbq,dkm->bqkm", tokens, query)
    scores = contract("bjkm,bqkm->bqjm", keys, queries)
    if seen is not None:
        scores = jnp.where(seen.T[:, :, None], scores, -jnp.inf)
    # The shift by the largest score keeps exponentials finite. It cancels, so its derivative is not needed.
    exponentials = _exponentials(scores, jax.lax.stop_gradient(_largest(scores)))
    # A row of ones below the tokens sums the exponentials themselves.
    ones = jnp.ones_like(tokens[:1])
    sums = contract("dbj,bqjm->bqdm", jnp.concatenate([tokens, ones]), exponentials)
    attended = contract("bqdm,bqm->bqdm", sums[:, :, :-1], _inverse(sums[:, :, -1]))
    return contract("edm,bqdm->ebq", value, attended)


@isolated
def _largest(scores: Float[Array, "prompts queries keys heads"]) -> Float[Array, "prompts queries heads"]:
    """The largest score of each query."""
    # Written out: XLA's own reduction along an inner axis is slow.
    return functools.reduce(jnp.maximum, (scores[:, :, key] for key in range(scores.shape[2])))


@isolated
def _exponentials(
    scores: Float[Array, "prompts queries keys heads"], largest: Float[Array, "prompts queries heads"]
) -> Float[Array, "prompts queries keys heads"]:
    return jnp.exp(scores - largest[:, :, None])


@isolated
def _inverse(total: Float[Array, "prompts queries heads"]) -> Float[Array, "prompts queries heads"]:
    return 1 / total
