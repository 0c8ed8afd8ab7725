"""Conditional optimal transport: the divergence of two measures, depth by depth."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
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
    mesh: Mesh | None = None,
) -> Divergence:
    r"""\( \int_0^1 S_\varepsilon\big(\rho(\cdot|t), \rho'(\cdot|t)\big)\,dt \), the entropic form of the conditional
    distance d².

    The metric of measures that share a uniform depth marginal: mass moves within a depth, never across.

    **Arguments:**

    - `x`, `y`: clouds at the same depths, `[depth, n, P]` and `[depth, m, P]`, with weights `[depth, n]` and
      `[depth, m]` of sum 1 at each.
    - `depth_weights`: the depths' quadrature weights.
    - `mesh`: devices to spread the depths over, e.g. of [`wgf.sharding.mesh`][]. Clouds move there once, wherever they
      are; nothing moves while iterating.
    - the rest as in [`wgf.transport.sinkhorn_divergence`][].

    **Returns:** [`wgf.transport.Divergence`][]; `converged` only if every depth is; potentials `[depth, ...]`. A device
    solves its depths one at a time, to hold one kernel at once.

    **Source:** R. Barboni, G. Peyré, F.-X. Vialard, *Understanding the training of infinitely deep and wide ResNets
    with conditional optimal transport*, arXiv:2403.12887.
    """
    if x_weights is None:
        x_weights = jnp.full(x.shape[:2], 1 / x.shape[1], x.dtype)
    if y_weights is None:
        y_weights = jnp.full(y.shape[:2], 1 / y.shape[1], y.dtype)

    def at_depth(clouds, epsilon):
        x, y, a, b, initial = clouds
        options = {"threshold": threshold, "max_iterations": max_iterations, "initial": initial}
        return sinkhorn_divergence(x, y, epsilon=epsilon, x_weights=a, y_weights=b, **options)

    def at_depths(clouds, epsilon):
        return jax.lax.map(lambda clouds: at_depth(clouds, epsilon), clouds)

    clouds, epsilon = (x, y, x_weights, y_weights, initial), jnp.asarray(epsilon, x.dtype)
    each = at_depths(clouds, epsilon) if mesh is None else _spread(at_depths, mesh)(clouds, epsilon)
    return Divergence(
        jnp.sum(depth_weights * each.value),
        each.epsilon[0],
        jnp.all(each.converged),
        jnp.max(each.iterations),
        each.potentials,
    )


def _spread(at_depths, mesh: Mesh):
    """The same function, each device of a mesh at work on its share of the depths."""
    over, everywhere = PartitionSpec(mesh.axis_names), PartitionSpec()

    def spread(clouds, epsilon):
        depth = len(clouds[0])
        whole = -(-depth // mesh.size) * mesh.size
        # The first depths once more fill the shares up.
        filled = clouds if whole == depth else jax.tree.map(lambda leaf: leaf[np.arange(whole) % depth], clouds)
        # What loops start from is the same on all devices, what they end with is not: no check of that.
        shares = jax.shard_map(at_depths, mesh=mesh, in_specs=(over, everywhere), out_specs=over, check_vma=False)
        return jax.tree.map(lambda leaf: leaf[:depth], shares(filled, epsilon))

    return spread
