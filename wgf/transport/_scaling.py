"""Sinkhorn's iteration: the entropic transport of one cloud to another."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._backend.precision import Module
from ._gibbs import Gibbs, soft_minimum

# The number of iterations between updates of the relaxation.
_PERIOD = 4


class Scaled(Module):
    """Potentials, the L1 error of the plan's two marginals, and the number of iterations."""

    f: Float[Array, " n"]
    g: Float[Array, " m"]
    error: Float[Array, ""]
    iterations: Int[Array, ""]


class _State(NamedTuple):
    # Logarithms of the scalings of the kernel's rows and columns.
    u: Float[Array, " n"]
    v: Float[Array, " m"]
    error: Float[Array, ""]
    iterations: Int[Array, ""]
    relaxation: Float[Array, ""]
    # The error when the relaxation was chosen.
    mark: Float[Array, ""]
    inside: Bool[Array, ""]


def scale(
    x: Float[Array, "n dim"],
    y: Float[Array, "m dim"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    f: Float[Array, " n"],
    g: Float[Array, " m"],
    epsilon: Float[Array, ""],
    *,
    threshold: ArrayLike,
    most: ArrayLike,
    rows: int,
) -> Scaled:
    """The potentials of the transport from x to y, from an initial guess.

    An iteration updates the scalings of the kernel with two matrix-vector products and no exponentials. When scalings
    are about to leave the range of floating-point numbers, they are absorbed in the potentials. Then one iteration is
    made in logarithms, and the kernel is recomputed (B. Schmitzer, arXiv:1610.06519).
    """
    columns = rows * len(x) // len(y) + 1  # of the transposed kernel, for as many entries at once

    def attempt(carry):
        scaled, inside = carry

        def in_logarithms(f):
            g = soft_minimum(y, x, f, a, epsilon, min(columns, len(y)))
            return soft_minimum(x, y, g, b, epsilon, rows), g

        f, g = jax.lax.cond(inside, lambda f: (f, scaled.g), in_logarithms, scaled.f)
        kernel = Gibbs(x, y, f, g, epsilon, rows)
        start = scaled.iterations + jnp.where(inside, 0, 1)
        state = _iterate(kernel, a, b, start, threshold, most)
        f, g = f + epsilon * state.u, g + epsilon * state.v
        return Scaled(f, g, state.error, state.iterations), state.inside

    def unfinished(carry):
        scaled, _ = carry
        finite = jnp.all(jnp.isfinite(scaled.f)) & jnp.all(jnp.isfinite(scaled.g))
        return (scaled.error > threshold) & (scaled.iterations < most) & finite

    start = Scaled(f, g, jnp.asarray(jnp.inf, f.dtype), jnp.asarray(0)), jnp.asarray(True)
    return jax.lax.while_loop(unfinished, attempt, start)[0]


def _iterate(kernel: Gibbs, a: Array, b: Array, iterations: Array, threshold: ArrayLike, most: ArrayLike) -> _State:
    """Scale a kernel until its marginals are right, or until the scalings are about to leave the range of numbers."""
    tiny = jnp.finfo(a.dtype).tiny
    widest = -jnp.log(tiny) / 3

    def rows(block, parts):
        u, a, weights, relaxation = parts
        sums = jnp.maximum(block @ weights, tiny)
        u = _step(u, u + jnp.log(sums), a, relaxation)
        mass = a * jnp.exp(u)
        return u, (mass @ block, jnp.sum(jnp.abs(mass * sums - a)))

    def body(state):
        weights = b * jnp.exp(state.v)
        u, (sums, error) = kernel.sweep(
            lambda block, parts: rows(block, (*parts, weights, state.relaxation)), (state.u, a)
        )
        sums = jnp.maximum(sums, tiny)
        error = error + jnp.sum(jnp.abs(weights * sums - b))
        iterations = state.iterations + 1
        # The last iteration is not relaxed: the second marginal is then exact, and the first no worse than the error.
        last = ~(error > threshold) | (iterations >= most)
        relaxation = jnp.where(last, 1, state.relaxation)
        v = _step(state.v, state.v + jnp.log(sums), b, relaxation)
        inside = jnp.maximum(jnp.max(jnp.abs(u)), jnp.max(jnp.abs(v))) < widest
        new = _State(u, v, error, iterations, state.relaxation, state.mark, inside)
        kept = new._replace(u=state.u, v=state.v, error=state.error)
        new = jax.tree.map(lambda new, kept: jnp.where(inside, new, kept), new, kept)
        return _relax(new)

    def unfinished(state):
        return (state.error > threshold) & (state.iterations < most) & state.inside

    infinite, one = jnp.asarray(jnp.inf, a.dtype), jnp.ones((), a.dtype)
    start = _State(jnp.zeros_like(a), jnp.zeros_like(b), infinite, iterations, one, infinite, jnp.asarray(True))
    return jax.lax.while_loop(unfinished, body, start)


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


def _relax(state: _State) -> _State:
    r"""Choose the over-relaxation ω from the rate λ at which errors fell since the last choice.

    Near the solution λ, ω and the rate ϑ² of the plain iteration satisfy \( (\lambda + \omega - 1)^2 = \lambda \omega^2
    \vartheta^2 \), and the best is \( \omega = 2 / (1 + \sqrt{1 - \vartheta^2}) \) (Young's theory of relaxation;
    for Sinkhorn T. Lehmann, M.-K. von Renesse, A. Sambale, A. Uschmajew, arXiv:2012.12562). The best ω gives a rate of
    ω - 1 or less, and errors may grow at the start. Neither case gives information on ϑ, so ω is kept.
    """
    omega = state.relaxation
    rate = (state.error / state.mark) ** (1 / _PERIOD)
    squared = (rate + omega - 1) ** 2 / (rate * omega**2)
    best = 2 / (1 + jnp.sqrt(1 - jnp.clip(squared, 0, 0.9999)))
    due = state.iterations % _PERIOD == 0
    learnt = due & jnp.isfinite(state.mark) & (rate > omega - 1) & (rate < 1)
    return state._replace(
        relaxation=jnp.where(learnt, jnp.maximum(best, omega), omega), mark=jnp.where(due, state.error, state.mark)
    )
