"""Conditional optimal transport: the divergence of two measures, depth by depth."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ._divergence import Divergence, Potentials
from ._sinkhorn import sinkhorn_divergence


def conditional_divergence(
    x: Float[Array, "depth n dim"],
    y: Float[Array, "depth m dim"],
    depth_weights: Float[Array, " depth"],
    *,
    epsilon: ArrayLike,
    x_weights: Float[Array, "depth n"] | None = None,
    y_weights: Float[Array, "depth m"] | None = None,
    threshold: float = 1e-3,
    max_iterations: int = 2000,
    initial: Potentials | None = None,
) -> Divergence:
    r"""\( \int_0^1 S_\varepsilon\big(\rho(\cdot|t), \rho'(\cdot|t)\big)\,dt \), the entropic form of the conditional
    distance d².

    The metric of measures that share a uniform depth marginal: mass moves within a depth, never across.

    **Arguments:** clouds at the same depths, `[depth, n, P]` and `[depth, m, P]`; the depths' quadrature weights;
    the rest as in [`wgf.transport.sinkhorn_divergence`][].

    **Returns:** [`wgf.transport.Divergence`][]; `converged` only if every depth is; potentials `[depth, ...]`. Depths
    are solved one at a time, to hold one kernel at once.

    **Source:** R. Barboni, G. Peyré, F.-X. Vialard, *Understanding the training of infinitely deep and wide ResNets
    with conditional optimal transport*, arXiv:2403.12887.
    """
    if x_weights is None:
        x_weights = jnp.full(x.shape[:2], 1 / x.shape[1], x.dtype)
    if y_weights is None:
        y_weights = jnp.full(y.shape[:2], 1 / y.shape[1], y.dtype)

    def at_depth(clouds):
        x, y, a, b, initial = clouds
        options = {"threshold": threshold, "max_iterations": max_iterations, "initial": initial}
        return sinkhorn_divergence(x, y, epsilon=epsilon, x_weights=a, y_weights=b, **options)

    each = jax.lax.map(at_depth, (x, y, x_weights, y_weights, initial))
    return Divergence(
        jnp.sum(depth_weights * each.value),
        each.epsilon[0],
        jnp.all(each.converged),
        jnp.max(each.iterations),
        each.potentials,
    )
