"""The measure on a fixed grid: the limit's law in Eulerian coordinates."""

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.special import xlogy
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._backend.compat import is_traced
from .._checks import at_least, finite, holds
from .._depth import one_depth
from .._display.text import sizes
from ._base import AbstractMeasure, check_weights
from ._spectral import Rule, lagrange, quadrature


class Eulerian(AbstractMeasure):
    r"""A law with weights \( a_{ij} \) in the cells \( C_j \) of a fixed grid, at quadrature nodes \( t_i \) in depth.

    \[ \rho(d\theta, t) = \sum_i \ell_i(t) \sum_j a_{ij}\, \delta_{\theta_j}(d\theta), \qquad
       a_{ij} \approx \int_{C_j} \rho(d\theta, t_i), \]

    θ_j is the centre of a cell, the same at all depths, and ℓ_i is the Lagrange polynomial of a node. Under
    [`wgf.flow`][] the weights change and the grid is fixed. The result is a finite-volume solution of the
    Wasserstein-flow PDE, independent of the particle solution. `particles` holds the centres.

    **Arguments:**

    - `lower`, `upper`: two opposite corners of the grid. Each is one particle of the encoder, without leading axes and
      with P ≤ 3 coordinates.
    - `weights`: `[nodes, *cells]`, not negative, with sum 1 at each node. Their shape gives the number of cells along
      each coordinate, in the order of [`wgf.measures.coordinates`][].
    - `rule`: the quadrature in depth, as in [`wgf.measures.Spectral`][].

    **Raises:** `ValueError` naming the argument if shapes do not fit, corners are out of order, there are more than
    three coordinates, or the weights are not probabilities.

    Cost of an average: that of an average over \( n^P \) particles. Order: the error of averages of smooth functions
    is O(Δθ²). Good values: a box that extends 4 to 5 standard deviations to either side, with cells of at most half a
    standard deviation.

    **Source:** J. A. Carrillo, A. Chertock, Y. Huang, *A finite-volume method for nonlinear nonlocal equations with a
    gradient flow structure*, Commun. Comput. Phys. 17 (2015), section 2.
    """

    lower: PyTree[Array]
    upper: PyTree[Array]
    weights: Float[Array, "depth width"]
    cells: tuple[int, ...] = eqx.field(static=True)
    rule: Rule = eqx.field(static=True)

    def __init__(self, lower: PyTree[ArrayLike], upper: PyTree[ArrayLike], weights: ArrayLike, *, rule: Rule = "gauss"):
        self.lower, self.upper = _check_corners(lower, upper)
        dim = ravel_pytree(self.lower)[0].size
        weights = finite("weights", weights)
        if weights.ndim != dim + 1 or 0 in weights.shape:
            raise ValueError(
                f"`weights` must have shape [nodes, *cells] with cells along each of {dim} coordinates and no empty "
                f"axis; got {weights.shape}."
            )
        nodes, *cells = weights.shape
        self.cells = tuple(at_least("cells", count, 2) for count in cells)
        quadrature(nodes, rule)
        self.rule = rule
        self.weights = check_weights(weights.reshape(nodes, -1), _centres(self.lower, self.upper, self.cells, nodes))

    def _size(self) -> str:
        return f"{sizes(self.weights)} cells of a grid {' × '.join(map(str, self.cells))}"

    @property
    def particles(self) -> PyTree[Array]:
        """The centres of the cells, leading axes `[nodes, width]`; the last coordinate runs fastest."""
        return _centres(self.lower, self.upper, self.cells, self.weights.shape[0])

    @property
    def spacing(self) -> Float[Array, " dim"]:
        """The side lengths Δθ of a cell."""
        lower, upper = (ravel_pytree(corner)[0] for corner in (self.lower, self.upper))
        return (upper - lower) / jnp.array(self.cells, lower.dtype)

    @property
    def depths(self) -> Float[Array, " depth"]:
        """The nodes t_i."""
        return jnp.asarray(quadrature(self.weights.shape[0], self.rule)[0], self.weights.dtype)

    @property
    def depth_weights(self) -> Float[Array, " depth"]:
        """The quadrature weights w_i."""
        return jnp.asarray(quadrature(self.weights.shape[0], self.rule)[1], self.weights.dtype)

    def at(self, depth: ArrayLike) -> tuple[PyTree[Array], Float[Array, " width"]]:
        """The centres, and the weights interpolated to depth t. Between nodes a weight may be negative."""
        centres = jax.tree.map(lambda leaf: leaf[0], self.particles)
        depth = one_depth("depth", depth).astype(self.weights.dtype)
        return centres, lagrange(self.weights.shape[0], self.rule, depth) @ self.weights

    def entropy(self) -> Float[Array, ""]:
        r"""\( S = -\int_0^1\!\int \rho \log \rho\,d\theta\,dt = -\sum_{ij} w_i a_{ij} \log(a_{ij} / |C_j|) \).

        At temperature σ the flow descends the free energy \( F = Q - \sigma S \):
        `objective(model) - temperature * model.measure.entropy()`.
        """
        density = self.weights / jnp.prod(self.spacing)
        return -jnp.sum(self.depth_weights[:, None] * xlogy(self.weights, density))


@partial(jax.jit, static_argnums=(2, 3))
def _centres(lower: PyTree[Array], upper: PyTree[Array], cells: tuple[int, ...], nodes: int) -> PyTree[Array]:
    start, unravel = ravel_pytree(lower)
    spacing = (ravel_pytree(upper)[0] - start) / jnp.array(cells, start.dtype)
    axes = [start[i] + spacing[i] * (jnp.arange(count, dtype=start.dtype) + 0.5) for i, count in enumerate(cells)]
    grid = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1).reshape(math.prod(cells), len(cells))
    shared = jax.vmap(unravel)(grid)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (nodes, *leaf.shape)), shared)


def _check_corners(lower: PyTree[ArrayLike], upper: PyTree[ArrayLike]) -> tuple[PyTree[Array], PyTree[Array]]:
    lower, upper = (
        jax.tree.map(lambda leaf, name=name: finite(name, leaf), corner)
        for name, corner in (("lower", lower), ("upper", upper))
    )
    shapes = [jax.tree.map(jnp.shape, corner) for corner in (lower, upper)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"`upper` must be a particle of the structure of `lower`, {shapes[0]}; got {shapes[1]}.")
    start, end = ravel_pytree(lower)[0], ravel_pytree(upper)[0]
    if not 1 <= start.size <= 3:
        raise ValueError(
            f"`lower` must be a particle of 1 to 3 coordinates, because a grid has n^P cells; got {start.size}. Use "
            "wgf.measures.Spectral in higher dimensions."
        )
    got = None if is_traced(start, end) else f"lower {start.tolist()}, upper {end.tolist()}"
    return lower, holds(upper, jnp.all(start < end), "`upper` must lie above `lower` in every coordinate", got)
