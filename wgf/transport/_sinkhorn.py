"""The debiased Sinkhorn divergence of two clouds, and along a curve of clouds."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._backend.precision import Module
from .._checks import at_least
from ._divergence import Divergence, Potentials
from ._dual import dual_value
from ._gibbs import rows_at_once
from ._inputs import are_weights, as_array, check_cloud, check_initial, check_pair, check_positive, check_weights
from ._scaling import scale
from ._self_scaling import scale_self


def sinkhorn_divergence(
    x: Float[Array, "n dim"],
    y: Float[Array, "m dim"],
    *,
    epsilon: ArrayLike,
    x_weights: Float[Array, " n"] | None = None,
    y_weights: Float[Array, " m"] | None = None,
    threshold: ArrayLike = 1e-3,
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

    **Raises:** `ValueError` if the clouds are empty, not finite, or of other dimensions or types, weights are negative
    or do not sum to 1, ε or `threshold` is not positive, a count is below 1, or `initial` is of other sizes. What is
    known only at run time (under `jit`) is not checked: such input has not `converged`.

    **Source:** J. Feydy et al., *Interpolating between Optimal Transport and MMD using Sinkhorn Divergences*,
    AISTATS 2019.
    """
    x, y = check_cloud("x", x), check_cloud("y", y)
    check_pair(("x", "y"), x, y)
    a, b = check_weights("x_weights", x_weights, x), check_weights("y_weights", y_weights, y)
    options = Options.of(x.dtype, epsilon, threshold, max_iterations, block)
    return _divergence(options, x, y, a, b, check_initial(initial, x, y))


@eqx.filter_jit
def _divergence(options: "Options", x: Array, y: Array, a: Array, b: Array, initial: Potentials) -> Divergence:
    return options.divergence(x, y, a, b, initial)


def divergence_curve(
    clouds: Float[Array, "saves n dim"],
    reference: Float[Array, "m dim"],
    *,
    epsilon: ArrayLike,
    weights: Float[Array, "saves n"] | None = None,
    reference_weights: Float[Array, " m"] | None = None,
    threshold: ArrayLike = 1e-3,
    max_iterations: int = 2000,
    block: int | None = None,
) -> Divergence:
    r"""\( S_\varepsilon(\alpha_k, \beta) \) of the clouds along a curve from one that stays.

    Each is solved from the potentials of the one before, and the reference's transport to itself once for all.

    **Arguments:** clouds `[saves, n, P]` in order, with weights `[saves, n]`; the reference, with weights `[m]`; the
    rest as in [`wgf.transport.sinkhorn_divergence`][].

    **Returns:** [`wgf.transport.Divergence`][] with an axis of saves in all its parts.

    **Raises:** `ValueError` as `sinkhorn_divergence` does.
    """
    clouds, reference = check_cloud("clouds", clouds, "[saves, n, P]"), check_cloud("reference", reference)
    check_pair(("clouds", "reference"), clouds, reference)
    a, b = check_weights("weights", weights, clouds), check_weights("reference_weights", reference_weights, reference)
    options = Options.of(clouds.dtype, epsilon, threshold, max_iterations, block)
    return _curve(options, clouds, reference, a, b, check_initial(None, clouds[0], reference))


@eqx.filter_jit
def _curve(
    options: "Options", clouds: Array, reference: Array, weights: Array, reference_weights: Array, start: Potentials
) -> Divergence:
    other = options.alone(reference, reference_weights, start.y_self)

    def step(potentials, cloud):
        points, weights = cloud
        found = options.between(points, weights, other, potentials)
        return found.potentials, found

    return jax.lax.scan(step, start, (clouds, weights))[1]


class _Alone(Module):
    """A cloud moved to a mean of 0, and its transport to itself. The mean is the sum of two vectors."""

    points: Float[Array, "n dim"]
    mean: tuple[Float[Array, " dim"], Float[Array, " dim"]]
    weights: Float[Array, " n"]
    value: Float[Array, ""]
    potential: Float[Array, " n"]
    converged: Bool[Array, ""]
    iterations: Int[Array, ""]


class Options(Module):
    """How to solve transport problems; ε is of the clouds' own type, which all else then is."""

    epsilon: Float[Array, ""]
    threshold: Float[Array, ""]
    most: Int[Array, ""]
    block: int | None = eqx.field(static=True)

    @classmethod
    def of(cls, dtype, epsilon: ArrayLike, threshold: ArrayLike, max_iterations: int, block: int | None) -> "Options":
        """Checked options: arrays, so that other values need no other program."""
        most = as_array(at_least("max_iterations", max_iterations, 1))
        block = None if block is None else at_least("block", block, 1)
        return cls(
            check_positive("epsilon", epsilon, dtype), check_positive("threshold", threshold, dtype), most, block
        )

    def divergence(self, x: Array, y: Array, a: Array, b: Array, initial: Potentials) -> Divergence:
        """The divergence of two clouds from a first guess of their potentials."""
        return self.between(x, a, self.alone(y, b, initial.y_self), initial)

    def alone(self, points: Array, weights: Array, potential: Array) -> _Alone:
        """The cloud's transport to itself, from a first guess of the potential."""
        rough = weights @ points
        points = points - rough[None]
        # The mean of far points is known to the spacing of their own numbers: what is left of it, to that of the rest.
        rest = weights @ points
        points = points - rest[None]
        rows = rows_at_once(len(points), len(points), self.block)
        fixed = jax.lax.stop_gradient((points, weights, _finite_or(0, potential), self.epsilon))
        solved = scale_self(*fixed, threshold=self.threshold, most=self.most, rows=rows)
        value = dual_value(points, points, weights, weights, solved.f, solved.g, self.epsilon, rows)
        converged = (solved.error <= self.threshold) & are_weights(weights) & (self.epsilon > 0)
        return _Alone(points, (rough, rest), weights, value, solved.f, converged, solved.iterations)

    def between(self, points: Array, weights: Array, other: _Alone, initial: Potentials) -> Divergence:
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
        value = value + jnp.sum(sum(mine - theirs for mine, theirs in zip(own.mean, other.mean, strict=True)) ** 2)
        # A NaN must not read as a value to trust, whatever the errors say.
        converged = (solved.error <= self.threshold) & own.converged & other.converged & jnp.isfinite(value)
        converged &= _resolved(((solved.f, own.weights), (solved.g, other.weights)), self.epsilon)
        iterations = jnp.maximum(solved.iterations, jnp.maximum(own.iterations, other.iterations))
        potentials = Potentials(solved.f, solved.g, own.potential, other.potential)
        return Divergence(value, self.epsilon, converged, iterations, potentials)


def _resolved(potentials: Sequence[tuple[Array, Array]], epsilon: Array) -> Bool[Array, ""]:
    """Whether potentials are so small that their sums are exact to a hundredth of ε, wherever there is mass."""
    largest = [jnp.max(jnp.where(weights > 0, jnp.abs(f), 0)) for f, weights in potentials]
    return sum(largest, jnp.zeros_like(epsilon)) * jnp.finfo(epsilon.dtype).eps <= 0.01 * epsilon


def _finite_or(otherwise, potential: Array) -> Array:
    return jnp.where(jnp.all(jnp.isfinite(potential)), potential, otherwise)
