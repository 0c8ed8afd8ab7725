"""The derivatives of entropic transport, which need no derivative of the potentials."""

import functools

import jax.numpy as jnp
from jax.scipy.special import xlogy
from jaxtyping import Array, ArrayLike, Float

from .._backend.compat import nondifferentiable
from .._backend.precision import custom_jvp
from ._gibbs import Gibbs
from ._memory import by_platform


@functools.partial(custom_jvp, nondiff_argnums=(8,))
def optimal_value(
    value: Array, x: Array, y: Array, a: Array, b: Array, f: Array, g: Array, epsilon: ArrayLike, block: int | None
) -> Float[Array, ""]:
    r"""The value \( W_\varepsilon = \langle a, f\rangle + \langle b, g\rangle \) of optimal potentials f and g.

    Derivatives follow from the envelope theorem, with \( \pi \) the plan. In `x` they are
    \( 2 \sum_j \pi_{ij} (x_i - y_j) \), and the same in `y` with the roles exchanged. In the weights they are the
    potentials, and in ε the relative entropy of the plan. Only first derivatives exist. Memory: that of the kernel.
    """
    del x, y, a, b, f, g, epsilon, block
    return value


@optimal_value.defjvp
def _derivative(block, primals, tangents):
    value, x, y, a, b, f, g, epsilon = nondifferentiable(
        primals, msg="a Sinkhorn divergence has first derivatives only."
    )
    _, dx, dy, da, db, _, _, depsilon = tangents

    def step(block, parts):
        x, a = parts
        surprise = xlogy(block, block) @ b
        return (block @ b, block @ (b[:, None] * y), surprise), (a @ block, block.T @ (a[:, None] * x))

    def sweep(rows):
        return Gibbs(x, y, f, g, epsilon, rows).sweep(step, (x, a))

    # Of the plan: its marginals divided by the weights, the points that it assigns to each point, its relative entropy.
    sums = by_platform(sweep, (len(x), len(y)), block, x.dtype.itemsize)
    (x_mass, to_x, surprise), (y_mass, to_y) = sums
    x_slope = 2 * a[:, None] * (x_mass[:, None] * x - to_x)
    y_slope = 2 * b[:, None] * (y_mass[:, None] * y - to_y)
    entropy = jnp.sum(a * surprise)
    change = jnp.sum(x_slope * dx) + jnp.sum(y_slope * dy) + jnp.sum(f * da) + jnp.sum(g * db) + entropy * depsilon
    return value, change
