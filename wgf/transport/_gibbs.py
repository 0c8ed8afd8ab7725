"""The Gibbs kernel of two clouds, held whole if it is small, and otherwise computed in blocks of rows."""

from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, ArrayLike, Float

from .._backend.precision import Module

_Parts = TypeVar("_Parts")
_Out = TypeVar("_Out")
_Sums = TypeVar("_Sums")

# The most rounding of squared distances, relative to ε, at which exponents use a matrix product.
_ROUNDING = 2.0**-12
# The number of coordinates whose differences are taken in one pass over the result.
_COORDINATES = 8


def gibbs(x: Array, y: Array, f: Array, g: Array, epsilon: ArrayLike) -> Float[Array, "n m"]:
    """The kernel's entries, kept finite even at points of weight 0, whose potentials no marginal bounds."""
    most = jnp.log(jnp.finfo(x.dtype).max) / 2
    return of_exponents(lambda z: jnp.exp(jnp.minimum(z, most)), x, y, f, g, epsilon)


def of_exponents(compute: Callable[[Array], _Out], x: Array, y: Array, f: Array, g: Array, epsilon: ArrayLike) -> _Out:
    r"""`compute(z)` of the exponents \( z_{ij} = (f_i + g_j - \|x_i - y_j\|^2) / \varepsilon \).

    They are computed by one matrix product if that is exact enough. The product rounds squared distances by
    \( \max(\|x\|^2, \|y\|^2) \) times the spacing of numbers, which must be small compared with ε. Otherwise the
    squared distances are computed from differences, which is exact to all digits but more expensive. XLA fuses either
    way with an elementwise `compute`: one pass over the entries.
    """
    x_squares, y_squares = jnp.sum(x**2, axis=1), jnp.sum(y**2, axis=1)
    rounding = jnp.finfo(x.dtype).eps * jnp.maximum(jnp.max(x_squares), jnp.max(y_squares))

    def by_products(_):
        products = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
        return compute((2 * products + (f - x_squares)[:, None] + (g - y_squares)[None, :]) / epsilon)

    def by_differences(_):
        return compute((f[:, None] + g[None, :] - square_distances(x, y)) / epsilon)

    return jax.lax.cond(anywhere(rounding > _ROUNDING * epsilon), by_differences, by_products, None)


def square_distances(x: Array, y: Array) -> Float[Array, "n m"]:
    """‖x_i − y_j‖², a few coordinates at a time, so that memory is that of the result."""

    def add(sums, block):
        return sums + sum((p[:, None] - q[None, :]) ** 2 for p, q in zip(*block, strict=True)), None

    count = min(_COORDINATES, x.shape[1])
    blocks = in_blocks(x.T, count), in_blocks(y.T, count)
    return jax.lax.scan(add, jnp.zeros((len(x), len(y)), x.dtype), blocks)[0]


@custom_vmap
def anywhere(condition: Array) -> Array:
    """The condition. Under `vmap`, whether it holds anywhere in the batch: the whole batch then takes one branch."""
    return condition


@anywhere.def_vmap
def _in_batch(size: int, batched: list[bool], conditions: Array) -> tuple[Array, bool]:
    del size, batched
    return anywhere(jnp.any(conditions, axis=0)), False


class Gibbs(Module):
    r"""\( K_{ij} = e^{(f_i + g_j - \|x_i - y_j\|^2) / \varepsilon} \): the density of a plan with respect to
    the product of its marginals.

    - `x`, `y`: points `[n, P]` and `[m, P]`.
    - `f`, `g`: potentials `[n]` and `[m]`.
    - `rows`: the number of rows that are held at once. Memory: O(rows · m).
    - `whole`: the kernel if all rows are held at once, else None.
    """

    x: Float[Array, "n dim"]
    y: Float[Array, "m dim"]
    f: Float[Array, " n"]
    g: Float[Array, " m"]
    epsilon: ArrayLike
    rows: int = eqx.field(static=True)
    whole: Float[Array, "n m"] | None

    def __init__(self, x: Array, y: Array, f: Array, g: Array, epsilon: ArrayLike, rows: int):
        self.x, self.y, self.f, self.g, self.epsilon, self.rows = x, y, f, g, epsilon, rows
        self.whole = gibbs(x, y, f, g, epsilon) if rows >= len(x) else None

    def sweep(self, step: Callable[[Array, _Parts], tuple[_Out, _Sums]], parts: _Parts) -> tuple[_Out, _Sums]:
        """Apply `step` to each block of rows and to the same rows of the arrays `parts`, `[n, ...]`.

        A step returns arrays with as many rows, which are concatenated, and sums, which are added up. The last block is
        padded with points of zeros in all `parts`.
        """
        if self.whole is not None:
            return step(self.whole, parts)

        def one(block):
            x, f, parts = block
            return step(gibbs(x, self.y, f, self.g, self.epsilon), parts)

        def body(sums, block):
            out, more = one(block)
            return jax.tree.map(jnp.add, sums, more), out

        blocks = in_blocks((self.x, self.f, parts), self.rows)
        shapes = jax.eval_shape(one, jax.tree.map(lambda leaf: leaf[0], blocks))[1]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        sums, out = jax.lax.scan(body, zeros, blocks)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[: len(self.x)], out), sums


def in_rows(compute: Callable[[Array], _Out], x: Array, rows: int) -> _Out:
    """`compute(x)` in blocks of rows, where each row of the arrays that it returns belongs to a row of x."""
    if rows >= len(x):
        return compute(x)
    out = jax.lax.map(compute, in_blocks(x, rows))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[: len(x)], out)


def in_blocks(tree: _Parts, rows: int) -> _Parts:
    """Cut arrays `[n, ...]` to `[blocks, rows, ...]`, with the last block padded with zeros."""

    def cut(leaf):
        missing = -len(leaf) % rows
        padded = jnp.pad(leaf, [(0, missing), *[(0, 0)] * (leaf.ndim - 1)])
        return padded.reshape(-1, rows, *leaf.shape[1:])

    return jax.tree.map(cut, tree)
