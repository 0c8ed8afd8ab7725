"""The dual value of entropic transport, whose derivatives need no derivative of the potentials."""

import functools

import jax.numpy as jnp
from jax.scipy.special import xlogy
from jaxtyping import Array, Float

from .._backend.compat import nondifferentiable
from .._backend.precision import custom_jvp
from ._gibbs import Gibbs


@functools.partial(custom_jvp, nondiff_argnums=(7,))
def dual_value(
    x: Array, y: Array, a: Array, b: Array, f: Array, g: Array, epsilon: Array, rows: int
) -> Float[Array, ""]:
    r"""\( W_\varepsilon = \langle a, f\rangle + \langle b, g\rangle \), for optimal potentials and clouds around 0.

    Derivatives follow from the envelope theorem, with \( \pi \) the plan. In `x` they are
    \( 2 \sum_j \pi_{ij} (x_i - y_j) \), and the same in `y` with the roles exchanged. In the weights they are the
    potentials, and in ε the relative entropy of the plan. Only first derivatives exist. Memory: O(rows · m).
    """
    del x, y, epsilon, rows
    return jnp.sum(a * f) + jnp.sum(b * g)


@dual_value.defjvp
def _derivative(rows, primals, tangents):
    x, y, a, b, f, g, epsilon = primals = nondifferentiable(
        primals, msg="a Sinkhorn divergence has first derivatives only."
    )
    dx, dy, da, db, _, _, depsilon = tangents
    value = dual_value(*primals, rows)

    def step(block, parts):
        x, a = parts
        surprise = xlogy(block, block) @ b
        return (block @ b, block @ (b[:, None] * y), surprise), (a @ block, block.T @ (a[:, None] * x))

    # Of the plan: its marginals divided by the weights, the points that it assigns to each point, its relative entropy.
    (x_mass, to_x, surprise), (y_mass, to_y) = Gibbs(x, y, f, g, epsilon, rows).sweep(step, (x, a))
    x_slope = 2 * a[:, None] * (x_mass[:, None] * x - to_x)
    y_slope = 2 * b[:, None] * (y_mass[:, None] * y - to_y)
    entropy = jnp.sum(a * surprise)
    change = jnp.sum(x_slope * dx) + jnp.sum(y_slope * dy) + jnp.sum(f * da) + jnp.sum(g * db) + entropy * depsilon
    return value, change
