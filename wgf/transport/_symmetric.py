"""Sinkhorn's symmetric iteration: the entropic transport of a cloud to itself."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from ._gibbs import Gibbs
from ._state import State


def symmetric(kernel: Gibbs, a: Array, state: State, threshold: ArrayLike, most: ArrayLike) -> State:
    """Scale a cloud's own kernel, of zero potentials, by an iteration of the same rate for every ε.

    The kernel is positive definite, so the derivative of f - T(f) has eigenvalues in [1, 2]. The half steps of Feydy et
    al. (2019) therefore halve the error. The steps of B. T. Polyak's momentum method, used here, divide it by 5.8. The
    kernel's diagonal is 1, so the scalings of points with mass stay within range.
    """
    tiny = jnp.finfo(a.dtype).tiny
    pace, momentum = 4 / (1 + math.sqrt(2)) ** 2, ((math.sqrt(2) - 1) / (math.sqrt(2) + 1)) ** 2

    def body(carry):
        u, moved, state = carry
        mass = a * jnp.exp(u)
        sums = jnp.maximum(kernel.sweep(lambda block, _: (block @ mass, None), None)[0], tiny)
        error = 2 * jnp.sum(jnp.abs(mass * sums - a))
        # The first half step is exact where the kernel is nearly diagonal and where it is nearly constant.
        moved = momentum * moved - jnp.where(state.iterations == 0, 0.5, pace) * (u + jnp.log(sums))
        # At the end the potential with the measured error is kept, and its plan is scaled to mass 1.
        moved = jnp.where(error > threshold, moved, -jnp.log(jnp.sum(mass * sums)) / 2)
        return u + moved, moved, state.iterated(error)

    start = state.f / kernel.epsilon, jnp.zeros_like(state.f), state
    u, _, state = jax.lax.while_loop(lambda carry: carry[2].unfinished(threshold, most), body, start)
    return state._replace(f=kernel.epsilon * u, g=kernel.epsilon * u)
