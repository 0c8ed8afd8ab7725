"""Sinkhorn's iteration with one kernel: the entropic transport of one cloud to another."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ._gibbs import Gibbs
from ._state import State

# The number of iterations between updates of the relaxation.
_PERIOD = 4


class _Scalings(NamedTuple):
    # Logarithms of the scalings of the kernel's rows and columns.
    u: Float[Array, " n"]
    v: Float[Array, " m"]
    at: State
    relaxation: Float[Array, ""]
    # The error when the relaxation was chosen.
    mark: Float[Array, ""]


def relaxed(kernel: Gibbs, a: Array, b: Array, state: State, threshold: ArrayLike, most: ArrayLike) -> State:
    """Scale the kernel of the state's potentials until its marginals are right or the scalings leave their range.

    An iteration updates the scalings with two matrix-vector products and no exponentials of the kernel's size.
    """
    tiny = jnp.finfo(a.dtype).tiny
    widest = -jnp.log(tiny) / 3

    def rows(block, parts):
        u, a, weights, relaxation = parts
        sums = jnp.maximum(block @ weights, tiny)
        u = _step(u, u + jnp.log(sums), a, relaxation)
        mass = a * jnp.exp(u)
        return u, (mass @ block, jnp.sum(jnp.abs(mass * sums - a)))

    def body(old):
        weights = b * jnp.exp(old.v)
        u, (sums, error) = kernel.sweep(lambda block, parts: rows(block, (*parts, weights, old.relaxation)), (old.u, a))
        sums = jnp.maximum(sums, tiny)
        error = error + jnp.sum(jnp.abs(weights * sums - b))
        # The last iteration is not relaxed: the second marginal is then exact, and the first no worse than the error.
        last = ~(error > threshold) | (old.at.iterations + 1 >= most)
        v = _step(old.v, old.v + jnp.log(sums), b, jnp.where(last, 1, old.relaxation))
        inside = jnp.maximum(jnp.max(jnp.abs(u)), jnp.max(jnp.abs(v))) < widest
        u, v = jnp.where(inside, u, old.u), jnp.where(inside, v, old.v)
        return _relax(old._replace(u=u, v=v, at=old.at.iterated(error, inside)._replace(inside=inside)))

    def unfinished(old):
        return old.at.unfinished(threshold, most) & old.at.inside

    infinite, one = jnp.asarray(jnp.inf, a.dtype), jnp.ones((), a.dtype)
    start = state._replace(error=infinite, inside=jnp.asarray(True))
    end = jax.lax.while_loop(unfinished, body, _Scalings(jnp.zeros_like(a), jnp.zeros_like(b), start, one, infinite))
    return end.at._replace(f=state.f + kernel.epsilon * end.u, g=state.g + kernel.epsilon * end.v)


def _step(u: Array, surplus: Array, weights: Array, relaxation: Array) -> Array:
    """Subtract `relaxation` times the surplus from the logarithms of scalings, or once if that gains too little.

    A relaxed step must raise the dual value by at least half of its rise near the maximum. The iteration then converges
    from any start.
    """

    def gain(relaxation):
        more, less = jnp.expm1(surplus), jnp.expm1((1 - relaxation) * surplus)
        return jnp.sum(weights * (more - less - relaxation * surplus))

    pays = gain(relaxation) >= relaxation * (2 - relaxation) / 2 * gain(jnp.ones_like(relaxation))
    return u - jnp.where(pays, relaxation, 1) * surplus


def _relax(state: _Scalings) -> _Scalings:
    r"""Choose the over-relaxation ω from the rate λ at which errors fell since the last choice.

    Near the solution λ, ω and the rate ϑ² of the plain iteration satisfy \( (\lambda + \omega - 1)^2 = \lambda \omega^2
    \vartheta^2 \), and the best is \( \omega = 2 / (1 + \sqrt{1 - \vartheta^2}) \) (Young's theory of relaxation;
    for Sinkhorn T. Lehmann, M.-K. von Renesse, A. Sambale, A. Uschmajew, arXiv:2012.12562). The best ω gives a rate of
    ω - 1 or less, and errors may grow at the start. Neither case gives information on ϑ, so ω is kept.
    """
    omega = state.relaxation
    rate = (state.at.error / state.mark) ** (1 / _PERIOD)
    squared = (rate + omega - 1) ** 2 / (rate * omega**2)
    best = 2 / (1 + jnp.sqrt(1 - jnp.clip(squared, 0, 0.9999)))
    due = state.at.iterations % _PERIOD == 0
    learnt = due & jnp.isfinite(state.mark) & (rate > omega - 1) & (rate < 1)
    return state._replace(
        relaxation=jnp.where(learnt, jnp.maximum(best, omega), omega), mark=jnp.where(due, state.at.error, state.mark)
    )
