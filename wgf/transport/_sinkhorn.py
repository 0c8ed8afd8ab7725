"""The debiased Sinkhorn divergence of two clouds, and along a curve of clouds."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._checks import at_least
from ._divergence import Divergence, Potentials
from ._dual import dual_value
from ._gibbs import rows_at_once
from ._scaling import scale
from ._self_scaling import scale_self


def sinkhorn_divergence(
    x: Float[Array, "n dim"],
    y: Float[Array, "m dim"],
    *,
    epsilon: ArrayLike,
    x_weights: Float[Array, " n"] | None = None,
    y_weights: Float[Array, " m"] | None = None,
    threshold: float = 1e-3,
    max_iterations: int = 2000,
    initial: Potentials | None = None,
    block: int | None = None,
) -> Divergence:
    r"""\( S_\varepsilon(\alpha, \beta) = W_\varepsilon(\alpha, \beta) - \tfrac12 W_\varepsilon(\alpha, \alpha)
    - \tfrac12 W_\varepsilon(\beta, \beta) \) for the squared distance \( \|x - y\|^2 \).

    Tends to W₂² as ε → 0 and the samples grow. Two samples of one law have a positive divergence, in high dimension a
    large one: compare with a noise floor ([`wgf.transport.Excess`][]) before believing a value.

    **Arguments:**

    - `x`, `y`: points `[n, P]` and `[m, P]`.
    - `epsilon`: ε > 0, in units of squared distance; [`wgf.transport.epsilon_from_scale`][] chooses one.
    - `x_weights`, `y_weights`: of sum 1 each; default uniform. Weight 0 is allowed.
    - `threshold`: the error at which an iteration stops, in the L1 norm, of both marginals together. 1e-3 is fine for
      values, 1e-4 for gradients.
    - `max_iterations`: the most iterations of each of the three problems.
    - `initial`: the potentials of an earlier divergence of as many points, to start from; ignored where not finite.
    - `block`: how many rows of a kernel to hold at once; default all up to 2²⁶ entries, beyond that a block which stays
      in a processor's cache. A kernel in blocks is computed anew in each iteration.

    **Returns:** [`wgf.transport.Divergence`][]. First derivatives in points, ε and weights (of sum 1: up to a constant)
    are those of the converged value. Cost: O((n + m)² P + iterations · (n + m)²) time, O(n m) memory or
    O(block · (n + m)).

    **Raises:** `ValueError` if `block` is below 1 or `initial` is of other sizes.

    **Source:** J. Feydy et al., *Interpolating between Optimal Transport and MMD using Sinkhorn Divergences*,
    AISTATS 2019.
    """
    options = _Options(jnp.asarray(epsilon, x.dtype), threshold, max_iterations, block)
    initial = _start(len(x), len(y), x.dtype) if initial is None else initial
    if initial.x.shape != x.shape[:1] or initial.y.shape != y.shape[:1]:
        got = f"{initial.x.shape} and {initial.y.shape}"
        raise ValueError(f"`initial` must be of the clouds' sizes, {x.shape[:1]} and {y.shape[:1]}; got {got}.")
    other = options.alone(y, y_weights, initial.y_self)
    return options.between(x, x_weights, other, initial)


def divergence_curve(
    clouds: Float[Array, "saves n dim"],
    reference: Float[Array, "m dim"],
    *,
    epsilon: ArrayLike,
    weights: Float[Array, "saves n"] | None = None,
    reference_weights: Float[Array, " m"] | None = None,
    threshold: float = 1e-3,
    max_iterations: int = 2000,
    block: int | None = None,
) -> Divergence:
    r"""\( S_\varepsilon(\alpha_k, \beta) \) of the clouds along a curve from one that stays.

    Each is solved from the potentials of the one before, and the reference's transport to itself once for all.

    **Arguments:** clouds `[saves, n, P]` in order, with weights `[saves, n]`; the reference, with weights `[m]`; the
    rest as in [`wgf.transport.sinkhorn_divergence`][].

    **Returns:** [`wgf.transport.Divergence`][] with an axis of saves in all its parts.
    """
    options = _Options(jnp.asarray(epsilon, clouds.dtype), threshold, max_iterations, block)
    other = options.alone(reference, reference_weights, jnp.full(len(reference), jnp.nan, reference.dtype))
    if weights is None:
        weights = jnp.full(clouds.shape[:2], 1 / clouds.shape[1], clouds.dtype)

    def step(potentials, cloud):
        points, weights = cloud
        found = options.between(points, weights, other, potentials)
        return found.potentials, found

    return jax.lax.scan(step, _start(clouds.shape[1], len(reference), clouds.dtype), (clouds, weights))[1]


class _Alone(eqx.Module):
    """A cloud moved to a mean of 0, and its transport to itself."""

    points: Float[Array, "n dim"]
    mean: Float[Array, " dim"]
    weights: Float[Array, " n"]
    value: Float[Array, ""]
    potential: Float[Array, " n"]
    converged: Bool[Array, ""]
    iterations: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class _Options:
    """How to solve transport problems; ε is of the clouds' own type, which all else then is."""

    epsilon: Float[Array, ""]
    threshold: float
    most: int
    block: int | None

    def __post_init__(self):
        if self.block is not None:
            at_least("block", self.block, 1)

    def alone(self, points: Array, weights: Array | None, potential: Array) -> _Alone:
        """The cloud's transport to itself, from a first guess of the potential."""
        if weights is None:
            weights = jnp.full(len(points), 1 / len(points), points.dtype)
        mean = weights @ points
        points = points - mean[None]
        rows = rows_at_once(len(points), len(points), self.block)
        fixed = jax.lax.stop_gradient((points, weights, _finite_or(0, potential), self.epsilon))
        solved = scale_self(*fixed, threshold=self.threshold, most=self.most, rows=rows)
        value = dual_value(points, points, weights, weights, solved.f, solved.g, self.epsilon, rows)
        return _Alone(points, mean, weights, value, solved.f, solved.error <= self.threshold, solved.iterations)

    def between(self, points: Array, weights: Array | None, other: _Alone, initial: Potentials) -> Divergence:
        """The divergence of a cloud from another whose transport to itself is known."""
        own = self.alone(points, weights, initial.x_self)
        rows = rows_at_once(len(own.points), len(other.points), self.block)
        # Clouds that hardly differ have nearly their own potentials.
        f, g = _finite_or(own.potential, initial.x), _finite_or(other.potential, initial.y)
        problem = own.points, other.points, own.weights, other.weights
        fixed = jax.lax.stop_gradient((*problem, f, g, self.epsilon))
        solved = scale(*fixed, threshold=self.threshold, most=self.most, rows=rows)
        value = dual_value(*problem, solved.f, solved.g, self.epsilon, rows) - (own.value + other.value) / 2
        # Means apart add their squared distance, and nothing else.
        value = value + jnp.sum((own.mean - other.mean) ** 2)
        # A NaN must not read as a value to trust, whatever the errors say.
        converged = (solved.error <= self.threshold) & own.converged & other.converged & jnp.isfinite(value)
        iterations = jnp.maximum(solved.iterations, jnp.maximum(own.iterations, other.iterations))
        potentials = Potentials(solved.f, solved.g, own.potential, other.potential)
        return Divergence(value, self.epsilon, converged, iterations, potentials)


def _start(n: int, m: int, dtype) -> Potentials:
    """No guess."""
    return Potentials(*(jnp.full(count, jnp.nan, dtype) for count in (n, m, n, m)))


def _finite_or(otherwise, potential: Array) -> Array:
    return jnp.where(jnp.all(jnp.isfinite(potential)), potential, otherwise)
