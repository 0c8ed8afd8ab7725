"""The debiased Sinkhorn divergence of two clouds, by ott-jax."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int
from ott.geometry.pointcloud import PointCloud
from ott.tools.sinkhorn_divergence import sinkhorn_divergence as ott_divergence


class Divergence(eqx.Module):
    """A debiased Sinkhorn divergence and whether to trust it.

    - `value`: S_ε, in units of squared distance.
    - `epsilon`: the regularisation used.
    - `converged`: whether all three of its transport problems met the marginal tolerance. If not, the value may be far
      off: raise `max_iterations` or ε.
    - `iterations`: the most that one of the three took.
    """

    value: Float[Array, "*batch"]
    epsilon: Float[Array, "*batch"]
    converged: Bool[Array, "*batch"]
    iterations: Int[Array, "*batch"]


class Excess(eqx.Module):
    """A divergence beside its noise floor: what sampling alone would show.

    - `value`: the divergence of the two clouds.
    - `floor`: that of two independent samples of one law, of the same sizes and at the same ε.
    - `epsilon`: the regularisation of both.
    - `converged`: whether both are to be trusted.
    """

    value: Float[Array, "*batch"]
    floor: Float[Array, "*batch"]
    epsilon: Float[Array, "*batch"]
    converged: Bool[Array, "*batch"]

    @property
    def excess(self) -> Float[Array, "*batch"]:
        """The divergence above its noise floor; near or below 0 where the two laws cannot be told apart."""
        return self.value - self.floor


def sinkhorn_divergence(
    x: Float[Array, "n dim"],
    y: Float[Array, "m dim"],
    *,
    epsilon: ArrayLike,
    x_weights: Float[Array, " n"] | None = None,
    y_weights: Float[Array, " m"] | None = None,
    threshold: float = 1e-3,
    max_iterations: int = 2000,
) -> Divergence:
    r"""\( S_\varepsilon(\alpha, \beta) = W_\varepsilon(\alpha, \beta) - \tfrac12 W_\varepsilon(\alpha, \alpha)
    - \tfrac12 W_\varepsilon(\beta, \beta) \) for the squared distance \( \|x - y\|^2 \).

    Tends to W₂² as ε → 0 and the samples grow. Two samples of one law have a positive divergence, in high dimension a
    large one: compare with a noise floor ([`wgf.transport.Excess`][]) before believing a value.

    **Arguments:**

    - `x`, `y`: points `[n, P]` and `[m, P]`.
    - `epsilon`: ε > 0, in units of squared distance; [`wgf.transport.epsilon_from_scale`][] chooses one.
    - `x_weights`, `y_weights`: of sum 1 each; default uniform. Weight 0 is allowed.
    - `threshold`: the marginal error at which an iteration stops. 1e-3 is fine for values, 1e-4 for gradients.
    - `max_iterations`: the most iterations of each of the three problems.

    **Returns:** [`wgf.transport.Divergence`][]. Cost: O((n + m)² P + iterations · (n + m)²) time, O((n + m)²) memory.

    **Source:** J. Feydy et al., *Interpolating between Optimal Transport and MMD using Sinkhorn Divergences*,
    AISTATS 2019.
    """
    # In the clouds' own type throughout: ott would mix in JAX's default one.
    epsilon = jnp.asarray(epsilon, x.dtype)
    x_weights, y_weights = (
        jnp.full(len(points), 1 / len(points), points.dtype) if weights is None else weights
        for points, weights in ((x, x_weights), (y, y_weights))
    )
    value, out = ott_divergence(
        PointCloud,
        x,
        y,
        a=x_weights,
        b=y_weights,
        epsilon=epsilon,
        solve_kwargs={"threshold": threshold, "max_iterations": max_iterations},
    )
    # A NaN must not read as a value to trust, whatever the flags say.
    converged = jnp.all(jnp.stack(out.converged)) & jnp.isfinite(value)
    return Divergence(value, epsilon, converged, jnp.max(jnp.stack(out.n_iters)))
