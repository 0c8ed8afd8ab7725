"""The mean of many small attention heads, fast on a CPU."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._base import Batch
from ._contract import contract, isolated
from ._tiles import tiled_sum

Strip = tuple[
    Float[Array, "token_dim token_dim heads"],
    Float[Array, "token_dim key_dim heads"],
    Float[Array, "token_dim key_dim heads"],
]


def suits(token_dim: int, length: int, key_dim: int) -> bool:
    """Whether these sizes are so small that loops along heads beat matrix products, on the backend in use."""
    return jax.default_backend() == "cpu" and 2 <= length <= 32 and max(token_dim, key_dim) <= 15


def sum_of_heads(
    value: Float[Array, "heads token_dim token_dim"],
    key: Float[Array, "heads key_dim token_dim"],
    query: Float[Array, "heads key_dim token_dim"],
    tokens: Batch,
) -> Batch:
    r"""The sum over heads, \( \sum_m V_m T_b \, \mathrm{softmax}\big((K_m T_b)^\top (Q_m T_b)\big) \), for every
    prompt b.

    Heads lie along the last axis of every array: for them the processor does the same arithmetic many times over, while
    the axes of tokens and their entries are too short to vectorise.
    """
    length = tokens.shape[2]
    strip = tuple(matrix.transpose(2, 1, 0) for matrix in (value.swapaxes(1, 2), key, query))
    return tiled_sum(_attend, strip, tokens, numbers=length * (length - 1), most_particles=64)


def _attend(tokens: Float[Array, "token_dim prompts length"], heads: Strip) -> Float[Array, "token_dim prompts length"]:
    """The sum over the heads of one tile.

    Letters: b prompts, j keys, q queries, d and e entries of a token, k entries of a key, m heads.
    """
    value, key, query = heads
    # Adding a number to all scores of a query changes nothing, so key 0 gets score 0, and needs no arithmetic.
    first = tokens[:, :, :1]
    others = tokens[:, :, 1:] - first
    keys = contract("dbj,dkm->bjkm", others, key)
    queries = contract("dbq,dkm->bqkm", tokens, query)
    scores = contract("bjkm,bqkm->bqjm", keys, queries)
    # The shift by the largest score keeps exponentials finite. It cancels, so that its derivative is not needed.
    largest = jax.lax.stop_gradient(_largest(scores))
    exponentials = _exponentials(scores, largest)
    # A row of ones sums the exponentials themselves.
    ones = jnp.ones_like(first, shape=(1, *others.shape[1:]))
    sums = contract("dbj,bqjm->bqdm", jnp.concatenate([others, ones]), exponentials)
    attended = contract("bqdm,bqm->bqdm", sums[:, :, :-1], _inverse(sums[:, :, -1], largest))
    return contract("edm,bqdm->ebq", value, attended) + jnp.einsum("edm,dbq->ebq", value, first)


@isolated
def _largest(scores: Float[Array, "prompts queries keys heads"]) -> Float[Array, "prompts queries heads"]:
    """The largest score of each query, those of key 0 included."""
    largest = jnp.zeros_like(scores[:, :, 0])
    for key in range(scores.shape[2]):
        largest = jnp.maximum(largest, scores[:, :, key])
    return largest


@isolated
def _exponentials(
    scores: Float[Array, "prompts queries keys heads"], largest: Float[Array, "prompts queries heads"]
) -> Float[Array, "prompts queries keys heads"]:
    return jnp.exp(scores - largest[:, :, None])


@isolated
def _inverse(
    total: Float[Array, "prompts queries heads"], largest: Float[Array, "prompts queries heads"]
) -> Float[Array, "prompts queries heads"]:
    """One over the sum of all exponentials; `total` lacks that of key 0."""
    return 1 / (total + jnp.exp(-largest))
