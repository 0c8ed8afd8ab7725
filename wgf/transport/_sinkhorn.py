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

    It tends to W₂² as ε → 0 and the samples grow. Two samples of one law have a positive divergence, which is large in
    high dimensions. Always compare a value with its noise floor ([`wgf.transport.Excess`][]).

    **Arguments:**

    - `x`, `y`: points `[n, P]` and `[m, P]`.
    - `epsilon`: ε > 0, in units of squared distance; [`wgf.transport.epsilon_from_scale`][] chooses one.
    - `x_weights`, `y_weights`: weights with sum 1; default uniform. Weight 0 is allowed.
    - `threshold`: the error at which an iteration stops: the L1 error of both marginals together. Good values: 1e-3 for
      values, 1e-4 for gradients.
    - `max_iterations`: the most iterations of each of the three problems.
    - `initial`: starting potentials, from an earlier divergence of as many points. They are ignored if not finite.
    - `block`: the number of rows of a kernel to hold at once. Default: all rows for up to 2²⁶ entries, else a block
      that stays in a processor's cache. A kernel in blocks is recomputed in each iteration.

    **Returns:** [`wgf.transport.Divergence`][]. Its first derivatives in points, ε and weights are those of the
    converged value. In the weights, whose sum is fixed, they are defined up to a constant.

    **Raises:** `ValueError` if the clouds are empty or not finite, their dimensions or types differ, weights are
    negative or do not sum to 1, ε or `threshold` is not positive, a count is below 1, or `initial` has other sizes.
    Traced values (under `jit`) are not checked: bad ones give a result that has not `converged`.

    Cost: O((n + m)² P + iterations · (n + m)²) time, and O(n m) or O(block · (n + m)) memory.

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
    r"""\( S_\varepsilon(\alpha_k, \beta) \) of the clouds along a curve from a fixed reference.

    Each problem starts from the potentials of the one before. The reference's transport to itself is solved once.

    **Arguments:**

    - `clouds`: points `[saves, n, P]` in order, with `weights` `[saves, n]`.
    - `reference`: points `[m, P]`, with `reference_weights` `[m]`.
    - the others as in [`wgf.transport.sinkhorn_divergence`][].

    **Returns:** [`wgf.transport.Divergence`][] with a leading axis `[saves]` in all its parts.

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
    """A cloud shifted to mean 0, and its transport to itself. Its mean is the sum of two vectors."""

    points: Float[Array, "n dim"]
    mean: tuple[Float[Array, " dim"], Float[Array, " dim"]]
    weights: Float[Array, " n"]
    value: Float[Array, ""]
    potential: Float[Array, " n"]
    converged: Bool[Array, ""]
    iterations: Int[Array, ""]


class Options(Module):
    """The options of transport problems. ε has the type of the clouds, and so have all results."""

    epsilon: Float[Array, ""]
    threshold: Float[Array, ""]
    most: Int[Array, ""]
    block: int | None = eqx.field(static=True)

    @classmethod
    def of(cls, dtype, epsilon: ArrayLike, threshold: ArrayLike, max_iterations: int, block: int | None) -> "Options":
        """Check the options and make them arrays, so that other values need no other program."""
        most = as_array(at_least("max_iterations", max_iterations, 1))
        block = None if block is None else at_least("block", block, 1)
        return cls(
            check_positive("epsilon", epsilon, dtype), check_positive("threshold", threshold, dtype), most, block
        )

    def divergence(self, x: Array, y: Array, a: Array, b: Array, initial: Potentials) -> Divergence:
        """The divergence of two clouds, with an initial guess of their potentials."""
        return self.between(x, a, self.alone(y, b, initial.y_self), initial)

    def alone(self, points: Array, weights: Array, potential: Array) -> _Alone:
        """The cloud's transport to itself, with an initial guess of the potential."""
        rough = weights @ points
        points = points - rough[None]
        # The mean of points far from 0 is only exact to their own spacing, so the remaining mean is subtracted as well.
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
        # Between nearly equal clouds the potentials are nearly those of the transports to themselves.
        f, g = _finite_or(own.potential, initial.x), _finite_or(other.potential, initial.y)
        problem = own.points, other.points, own.weights, other.weights
        fixed = jax.lax.stop_gradient((*problem, f, g, self.epsilon))
        solved = scale(*fixed, threshold=self.threshold, most=self.most, rows=rows)
        value = dual_value(*problem, solved.f, solved.g, self.epsilon, rows) - (own.value + other.value) / 2
        # Different means only add their squared distance.
        value = value + jnp.sum(sum(mine - theirs for mine, theirs in zip(own.mean, other.mean, strict=True)) ** 2)
        # A value that is NaN must not count as converged, even if the errors are small.
        converged = (solved.error <= self.threshold) & own.converged & other.converged & jnp.isfinite(value)
        converged &= _resolved(((solved.f, own.weights), (solved.g, other.weights)), self.epsilon)
        iterations = jnp.maximum(solved.iterations, jnp.maximum(own.iterations, other.iterations))
        potentials = Potentials(solved.f, solved.g, own.potential, other.potential)
        return Divergence(value, self.epsilon, converged, iterations, potentials)


def _resolved(potentials: Sequence[tuple[Array, Array]], epsilon: Array) -> Bool[Array, ""]:
    """Whether potentials are so small that their sums are exact to a hundredth of ε at all points with mass."""
    largest = [jnp.max(jnp.where(weights > 0, jnp.abs(f), 0)) for f, weights in potentials]
    return sum(largest, jnp.zeros_like(epsilon)) * jnp.finfo(epsilon.dtype).eps <= 0.01 * epsilon


def _finite_or(otherwise, potential: Array) -> Array:
    return jnp.where(jnp.all(jnp.isfinite(potential)), potential, otherwise)
