"""The mean over many small attention heads, fast on a CPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .contract import contract
from .outlining import outline
from .precision import custom_jvp
from .tiles import Block, Tile

Seen = Bool[np.ndarray, "keys queries"]
Others = Float[Array, "token_dim prompts keys"]
Keys = Float[Array, "prompts keys key_dim heads"]
Queries = Float[Array, "prompts queries key_dim heads"]
Means = Float[Array, "prompts queries token_dim heads"]
Scores = Float[Array, "prompts queries keys heads"]
Each = Float[Array, "prompts queries heads"]
Hidden = Float[Array, "queries length"]
Value = Float[Array, "token_dim token_dim heads"]
Key = Float[Array, "key_dim token_dim heads"]


def tile_of_heads(key_dim: int, token_dim: int, length: int, seen: Seen | None) -> Tile:
    r"""The sum \( \sum_m V_m T_b \, \mathrm{softmax}((K_m T_b)^\top (Q_m T_b)) \) over the heads (V, K, Q) of a tile.

    The softmax of a query runs over the keys that it has `seen` (at least one; None: all). On a CPU short prompts of
    small tokens use loops along heads; everything else uses matrix products.
    """
    products = functools.partial(_by_products, seen)
    if 1 < length <= 32 and max(key_dim, token_dim) < 16:
        return Tile(functools.partial(_by_loops, seen), products, numbers=length**2, most_particles=64)
    return Tile(products, products, numbers=length**2, most_particles=32)


def _by_products(seen: Seen | None, value: Value, key: Key, query: Key, tokens: Block) -> Block:
    """The sum over the heads of one tile, by matrix products. Letters as in `_by_loops`."""
    value, key, query = (matrix.transpose(2, 0, 1) for matrix in (value, key, query))
    keys = jnp.einsum("dbj,mkd->bmjk", tokens, key)
    queries = jnp.einsum("dbq,mkd->bmqk", tokens, query)
    scores = jnp.einsum("bmqk,bmjk->bmqj", queries, keys)
    if seen is not None:
        scores = jnp.where(seen.T, scores, -jnp.inf)
    attention = jax.nn.softmax(scores, axis=-1)
    # All heads attend to the same tokens: one product per prompt, with one row for each query of each head.
    b, m, q, j = attention.shape
    attended = jnp.einsum("brj,dbj->brd", attention.reshape(b, m * q, j), tokens).reshape(b, m, q, -1)
    return jnp.einsum("med,bmqd->ebq", value, attended)


def _by_loops(seen: Seen | None, value: Value, key: Key, query: Key, tokens: Block) -> Block:
    """The sum over the heads of one tile, with heads along the last axis of every array.

    The arithmetic is the same for all heads, and other axes are too short to vectorise. A softmax does not change if
    the same number is added to all scores, so tokens are taken relative to the first, whose score is then 0.

    Letters: b prompts, j keys after the first, q queries, d and e entries of a token, k entries of a key, m heads.
    """
    first, others = tokens[:, :, :1], tokens[:, :, 1:] - tokens[:, :, :1]
    keys = contract("dbj,kdm->bjkm", others, key)
    queries = contract("dbq,kdm->bqkm", tokens, query)
    hidden = None if seen is None else jnp.where(seen.T, 0, -jnp.inf).astype(tokens.dtype)
    moved = contract("edm,bqdm->ebq", value, _attended(others, keys, queries, hidden))
    return moved + jnp.einsum("ed,dbj->ebj", jnp.sum(value, axis=2), first)


@custom_jvp
def _attended(tokens: Others, keys: Keys, queries: Queries, hidden: Hidden | None) -> Means:
    """The mean of the tokens under the softmax of each query. `hidden` is added to scores: 0 or −∞."""
    return _means(tokens, *_exponentials(keys, queries, hidden))[0]


@_attended.defjvp
def _attended_jvp(primals, tangents):
    """The chain rule, ordered so that its transpose stores a single array over all keys and queries."""
    tokens, *scored = primals
    exponentials, first = _exponentials(*scored)
    means, inverse = _means(tokens, exponentials, first)
    # One sum over keys gives two changes: of the sum of tokens, and of the total that divides it.
    sums = contract("dbj,bqjm,bqjm->bqdm", _with_ones(tokens), exponentials, _scores_jvp(scored, tangents[1:]))
    total = contract("bqdm,bqm->bqdm", means, -sums[:, :, -1])
    change = contract("dbj,bqjm->bqdm", tangents[0], exponentials) + sums[:, :, :-1] + total
    return means, contract("bqdm,bqm->bqdm", change, inverse)


def _means(tokens: Others, exponentials: Scores, first: Each) -> tuple[Means, Each]:
    """The tokens' means, and the inverse of the exponentials' sum."""
    sums = contract("dbj,bqjm->bqdm", _with_ones(tokens), exponentials)
    inverse = _inverse(sums, first)
    return _quotients(sums, inverse), inverse


def _with_ones(tokens: Others) -> Float[Array, "rows prompts keys"]:
    """The tokens with a row of ones, which sums the exponentials themselves."""
    return jnp.concatenate([tokens, jnp.ones_like(tokens[:1])])


@custom_jvp
def _exponentials(keys: Keys, queries: Queries, hidden: Hidden | None) -> tuple[Scores, Each]:
    """The exponentials of each query's scores minus the largest, for the keys and for the first token."""
    largest = _largest(keys, queries, hidden)
    return _exponentials_below(keys, queries, hidden, largest), _first_below(hidden, largest)


@_exponentials.defjvp
def _exponentials_jvp(primals, tangents):
    """The largest score cancels in the mean, so it is treated as a constant."""
    exponentials, first = _exponentials(*primals)
    change = contract("bqjm,bqjm->bqjm", exponentials, _scores_jvp(primals, tangents))
    return (exponentials, first), (change, jnp.zeros_like(first))


def _scores_jvp(primals, tangents) -> Scores:
    keys, queries, _ = primals
    return contract("bjkm,bqkm->bqjm", tangents[0], queries) + contract("bjkm,bqkm->bqjm", keys, tangents[1])


def _scores(keys: Keys, queries: Queries, hidden: Hidden | None) -> Scores:
    """Scores by broadcasting, which XLA fuses with their consumer."""
    terms = (keys[:, None, :, k] * queries[:, :, None, k] for k in range(keys.shape[2]))
    scores = functools.reduce(jnp.add, terms)
    return scores if hidden is None else scores + hidden[None, :, 1:, None]


@outline
def _largest(keys, queries, hidden):
    """The largest score of each query, written out: XLA's reduction along an inner axis is slow."""
    scores = _scores(keys, queries, hidden)
    first = jnp.zeros_like(scores[:, :, 0]) + (0 if hidden is None else hidden[None, :, :1])
    return functools.reduce(jnp.maximum, (scores[:, :, key] for key in range(keys.shape[1])), first)


@outline
def _exponentials_below(keys, queries, hidden, largest):
    return jnp.exp(_scores(keys, queries, hidden) - largest[:, :, None])


@outline
def _first_below(hidden, largest):
    return jnp.exp((0 if hidden is None else hidden[None, :, :1]) - largest)


@outline
def _inverse(sums, first):
    return 1 / (sums[:, :, -1] + first)


@outline
def _quotients(sums, inverse):
    return sums[:, :, :-1] * inverse[:, :, None]
