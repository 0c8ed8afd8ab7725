"""Conditional optimal transport: the divergence of two measures, depth by depth."""

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._backend.compat import is_traced
from .._checks import instance, on_host, shown
from ._divergence import Divergence, Potentials
from ._inputs import as_array, check_cloud, check_initial, check_pair, check_weights, real
from ._sinkhorn import engine

if TYPE_CHECKING:
    from ._engine import Engine


def conditional_divergence(
    x: Float[Array, "depth n dim"],
    y: Float[Array, "depth m dim"],
    depth_weights: Float[Array, " depth"],
    *,
    epsilon: Any,
    x_weights: Float[Array, "depth n"] | None = None,
    y_weights: Float[Array, "depth m"] | None = None,
    threshold: ArrayLike = 1e-3,
    max_iterations: int = 2000,
    initial: Potentials | None = None,
    mesh: Mesh | None = None,
    block: int | None = None,
    **ott: Any,
) -> Divergence:
    r"""\( \int_0^1 S_\varepsilon\big(\rho(\cdot|t), \rho'(\cdot|t)\big)\,dt \), the entropic form of the conditional
    distance d².

    This is the metric of measures that share a uniform depth marginal: mass moves within a depth, never across depths.

    **Arguments:**

    - `x`, `y`: clouds at the same depths, `[depth, n, P]` and `[depth, m, P]`, with weights `[depth, n]` and
      `[depth, m]` of sum 1 at each depth.
    - `depth_weights`: the quadrature weights of the depths, not negative, with sum 1.
    - `mesh`: devices over which the depths are distributed, e.g. from [`wgf.sharding.mesh`][]. Clouds are moved there
      once; the iterations need no communication.
    - the others, and those of OTT, as in [`wgf.transport.sinkhorn_divergence`][].

    **Returns:** [`wgf.transport.Divergence`][]. It has `converged` only if every depth has. Potentials have a leading
    axis `[depth]`.

    **Raises:** `ValueError` as `sinkhorn_divergence` does, or if there are not as many clouds or weights as depths.

    Cost: a device solves its depths one at a time, so it holds one kernel at a time.

    **Source:** R. Barboni, G. Peyré, F.-X. Vialard, *Understanding the training of infinitely deep and wide ResNets
    with conditional optimal transport*, arXiv:2403.12887.
    """
    x, y = check_cloud("x", x, "[depth, n, P]"), check_cloud("y", y, "[depth, m, P]")
    check_pair(("x", "y"), x, y)
    if mesh is not None:
        instance("mesh", mesh, Mesh, "a mesh of devices, e.g. wgf.sharding.mesh(particles=2)")
    if len(y) != len(x):
        raise ValueError(f"`y` must have a cloud for each of the {len(x)} depths of `x`; got {len(y)}.")
    options = engine(x.dtype, epsilon, threshold, max_iterations, block, **ott)
    a = check_weights("x_weights", x_weights, x, options.is_balanced)
    b = check_weights("y_weights", y_weights, y, options.is_balanced)
    depth_weights = _check_depth_weights(depth_weights, x)
    clouds = x, y, a, b, check_initial(initial, x, y)
    if mesh is not None:
        options, clouds, depth_weights = _onto(mesh, (options, clouds, depth_weights))
    return _conditional(options, clouds, depth_weights, mesh)


@eqx.filter_jit
def _conditional(options: "Engine", clouds: PyTree[Array], depth_weights: Array, mesh: Mesh | None) -> Divergence:
    def at_depths(clouds, options):
        return jax.lax.map(lambda clouds: options.divergence(*clouds), clouds)

    each = (at_depths if mesh is None else _spread(at_depths, mesh))(clouds, options)
    return Divergence(
        jnp.sum(depth_weights * each.value),
        each.epsilon[0],
        jnp.all(each.converged),
        jnp.max(each.iterations),
        each.potentials,
        each.ot,
    )


def _check_depth_weights(depth_weights: ArrayLike, x: Array) -> Array:
    depth_weights = real("depth_weights", as_array(depth_weights, "depth_weights")).astype(x.dtype)
    if depth_weights.shape != x.shape[:1]:
        raise ValueError(
            f"`depth_weights` must have a weight for each of the {len(x)} depths; got shape {depth_weights.shape}."
        )
    known = on_host(depth_weights)
    valid = (known >= 0) & (known < np.inf)
    if not is_traced(valid) and not valid.all():
        raise ValueError(f"`depth_weights` must be finite and not negative; got {shown(known.tolist())}.")
    total = known.sum()
    if not is_traced(total) and abs(total - 1) > 1e-3:
        raise ValueError(f"`depth_weights` must have sum 1; got {float(total):.7g}. Divide by the sum.")
    return depth_weights


def _onto(mesh: Mesh, tree: PyTree[Array]) -> PyTree[Array]:
    """Put arrays on all devices of a mesh: a program on a mesh takes no arrays from other devices."""
    everywhere, devices = NamedSharding(mesh, PartitionSpec()), set(mesh.devices.flat)

    def move(leaf):
        here = is_traced(leaf) or leaf.sharding.device_set == devices
        return leaf if here else jax.device_put(leaf, everywhere)

    return jax.tree.map(move, tree)


def _spread(at_depths, mesh: Mesh):
    """The same function, with the depths distributed over the devices of a mesh."""
    over, everywhere = PartitionSpec(mesh.axis_names), PartitionSpec()

    def spread(clouds, options):
        depth = len(clouds[0])
        whole = -(-depth // mesh.size) * mesh.size
        # The shares are padded with copies of the first depths.
        filled = clouds if whole == depth else jax.tree.map(lambda leaf: leaf[np.arange(whole) % depth], clouds)
        # Loops start from equal values on all devices and end with different ones, which the check would reject.
        shares = jax.shard_map(at_depths, mesh=mesh, in_specs=(over, everywhere), out_specs=over, check_vma=False)
        return jax.tree.map(lambda leaf: leaf[:depth], shares(filled, options))

    return spread
