"""Gelbrich's bound: the Wasserstein distance of the Gaussian laws with the means and covariances of two clouds."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._inputs import check_cloud, check_pair, check_weights


def gelbrich_distance(
    x: Float[Array, "n dim"],
    y: Float[Array, "m dim"],
    *,
    x_weights: Float[Array, " n"] | None = None,
    y_weights: Float[Array, " m"] | None = None,
) -> Float[Array, ""]:
    r"""\( G(\alpha, \beta)^2 = \|m_\alpha - m_\beta\|^2 + \mathrm{tr}\,\Sigma_\alpha + \mathrm{tr}\,\Sigma_\beta
    - 2\,\mathrm{tr}\,(\Sigma_\alpha^{1/2} \Sigma_\beta \Sigma_\alpha^{1/2})^{1/2} \), a lower bound of W₂.

    m and Σ are the mean and the covariance of a cloud. The bound is exact for Gaussian laws, and for an affine map with
    a positive definite matrix between the clouds.

    **Arguments:**

    - `x`, `y`: points `[n, P]` and `[m, P]`.
    - `x_weights`, `y_weights`: weights with sum 1; default uniform. Weight 0 is allowed.

    **Returns:** G, a distance (not a square), in the units of the points. In float32 it is exact to about 1e-6 of the
    clouds' own size, however near they are to each other.

    **Raises:** `ValueError` if the clouds are empty or not finite, their dimensions or types differ, or weights are
    negative or do not sum to 1.

    Cost: O((n + m) P² + P³) time, O((n + m) P + P²) memory.

    **Source:** M. Gelbrich, *On a formula for the L² Wasserstein metric between measures on Euclidean and Hilbert
    spaces*, Math. Nachr. 147, 1990.
    """
    x, y = check_cloud("x", x), check_cloud("y", y)
    check_pair(("x", "y"), x, y)
    return _distance(x, y, check_weights("x_weights", x_weights, x), check_weights("y_weights", y_weights, y))


@eqx.filter_jit
def _distance(x: Array, y: Array, a: Array, b: Array) -> Float[Array, ""]:
    # Of points far from 0, rounded means would rule the covariances.
    origin = a @ x
    means, covariances = zip(*(_moments(points - origin[None], w) for points, w in ((x, a), (y, b))), strict=True)
    x_root, y_root = _square_roots(jnp.stack(covariances))
    # The distance of the nearest square roots, min over orthogonal U of |x_root - U y_root|: no difference of traces,
    # which would cancel where the clouds are near to each other.
    left, _, right = jnp.linalg.svd(x_root @ y_root, full_matrices=False)
    return jnp.sqrt(jnp.sum((means[0] - means[1]) ** 2) + jnp.sum((x_root - left @ right @ y_root) ** 2))


def _moments(points: Array, weights: Array) -> tuple[Float[Array, " dim"], Float[Array, "dim dim"]]:
    """The mean and the covariance."""
    mean = weights @ points
    centred = points - mean[None]
    return mean, (weights[:, None] * centred).T @ centred


def _square_roots(matrices: Float[Array, "count dim dim"]) -> Float[Array, "count dim dim"]:
    """The symmetric square roots of positive semi-definite matrices.

    One after another: on a CPU, batched decompositions that run at the same time, in one program or on several devices,
    can wait for each other for ever, as each waits for threads that the others hold.
    """
    values, vectors = jax.lax.map(jnp.linalg.eigh, matrices)
    # The root of a rounding error is no small number: what is below the errors of `eigh` counts as zero.
    least = values.shape[-1] * jnp.finfo(values.dtype).eps * values[:, -1:]
    roots = jnp.sqrt(jnp.where(values > least, values, 0))
    return (vectors * roots[:, None]) @ vectors.mT
