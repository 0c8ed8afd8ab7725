"""The limit's measure: particles at quadrature nodes in depth, interpolated by polynomials between them."""

from functools import cache
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree
from numpy.polynomial import Legendre

from .._checks import at_least, choice, instance
from .._depth import one_depth
from ._base import AbstractMeasure, check_particles, check_weights

Rule = Literal["gauss", "lobatto"]
# The nodes are eigenvalues of a matrix of this size.
_MOST_NODES = 1000


class Spectral(AbstractMeasure):
    r"""Particle j is θ_ij at node t_i, and \( \theta_j(t) = \sum_i \ell_i(t)\,\theta_{ij} \) at any depth t.

    The ℓ_i are the Lagrange polynomials of the nodes, and the w_i are their quadrature weights. If all nodes start
    from one shared sample, the solution of the Wasserstein flow is smooth in t. The error of its outputs then falls
    geometrically with the number of nodes.

    **Arguments:**

    - `particles`: arrays with leading axes `[nodes, M]`.
    - `weights`: `[M]` or `[nodes, M]`, not negative, with sum 1 over M; default 1/M. A particle of weight zero is a
      tracer. Weights that differ between nodes are interpolated too.
    - `rule`: `"gauss"` (Gauss–Legendre: exact to degree 2n − 1) or `"lobatto"` (both ends are nodes; degree 2n − 3).

    **Raises:** `ValueError` naming the argument if shapes do not fit, numbers are not finite or the rule is unknown.

    Good values: 3 or 4 nodes. Each further node divides the error of the outputs by 10 to 50.

    **Source:** L. N. Trefethen, *Approximation Theory and Approximation Practice*, chapters 5 and 19.
    """

    particles: PyTree[Array]
    weights: Float[Array, "depth width"]
    rule: Rule = eqx.field(static=True)

    def __init__(
        self,
        particles: PyTree[ArrayLike],
        weights: ArrayLike | None = None,
        *,
        rule: Rule = "gauss",
    ):
        self.particles, (nodes, _) = check_particles(particles, "[nodes, width]")
        self.weights = check_weights(weights, self.particles)
        quadrature(nodes, rule)
        self.rule = rule

    @classmethod
    def fit(cls, measure: AbstractMeasure, nodes: int, *, rule: Rule = "gauss") -> "Spectral":
        r"""The polynomials in depth that are nearest to the particles of another measure, a Transformer's say.

        Particle j of all its layers is taken as one path, \( \min \sum_\ell w_\ell \|\theta_j(t_\ell) -
        \theta_{\ell j}\|^2 \). This makes sense where a path is smooth in depth, as in a model that started from one
        sample at all depths. Layers with samples of their own have no such paths: put their measure into
        [`wgf.AveragedODE`][] as it is.

        **Arguments:** a `measure` with at least as many depths as `nodes`; the `nodes` and the `rule` of the result.

        **Raises:** `ValueError` if there are fewer depths than nodes, or a fitted weight is negative.
        """
        measure = instance("measure", measure, AbstractMeasure, "a measure over depth, e.g. model.measure")
        quadrature(nodes, rule)
        if len(measure.weights) < nodes:
            raise ValueError(
                f"`nodes` must be at most the {len(measure.weights)} depths of the measure; got {nodes}. Lower it."
            )
        basis = jax.vmap(lambda depth: lagrange(nodes, rule, depth))(measure.depths)
        roots = jnp.sqrt(measure.depth_weights)[:, None]
        solve = jnp.linalg.pinv(roots * basis) * roots.T
        particles, weights = jax.tree.map(
            lambda leaf: jnp.tensordot(solve.astype(leaf.dtype), leaf, 1), (measure.particles, measure.weights)
        )
        return cls(particles, weights, rule=rule)

    @property
    def depths(self) -> Float[Array, " depth"]:
        """The nodes t_i."""
        return jnp.asarray(quadrature(self.weights.shape[0], self.rule)[0], self.weights.dtype)

    @property
    def depth_weights(self) -> Float[Array, " depth"]:
        """The quadrature weights w_i."""
        return jnp.asarray(quadrature(self.weights.shape[0], self.rule)[1], self.weights.dtype)

    def at(self, depth: ArrayLike) -> tuple[PyTree[Array], Float[Array, " width"]]:
        """The particles and weights interpolated to depth t."""
        basis = self.basis(depth)
        return jax.tree.map(lambda leaf: jnp.tensordot(basis, leaf, 1), self.particles), basis @ self.weights

    def basis(self, depth: ArrayLike) -> Float[Array, " depth"]:
        r"""The Lagrange polynomials of the nodes at depth t."""
        return lagrange(self.weights.shape[0], self.rule, one_depth("depth", depth).astype(self.weights.dtype))


def lagrange(nodes: int, rule: str, depth: Float[Array, ""]) -> Float[Array, " depth"]:
    r"""The Lagrange polynomials of the nodes at depth t, \( \ell_i(t) = \prod_{k \ne i} (t - t_k)/(t_i - t_k) \)."""
    points, _ = quadrature(nodes, rule)
    spread = points[:, None] - points
    np.fill_diagonal(spread, 1.0)
    factors = (depth - points.astype(depth.dtype))[None] / spread.astype(depth.dtype)
    return jnp.prod(jnp.where(np.eye(nodes, dtype=bool), 1, factors), axis=1)


def quadrature(nodes: int, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a quadrature rule on [0, 1]. The weights sum to 1."""
    rule = choice("rule", rule, get_args(Rule))
    return _quadrature(at_least("nodes", nodes, 1 if rule == "gauss" else 2, _MOST_NODES), rule)


@cache
def _quadrature(nodes: int, rule: str) -> tuple[np.ndarray, np.ndarray]:
    if rule == "gauss":
        points, weights = np.polynomial.legendre.leggauss(nodes)
    else:
        # The ends and the roots of P'_{n-1}; w_i = 2 / (n (n-1) P_{n-1}(x_i)²), with sum 2 as for Gauss.
        polynomial = Legendre.basis(nodes - 1)
        points = np.concatenate([[-1.0], polynomial.deriv().roots().real, [1.0]])
        weights = 2 / (nodes * (nodes - 1) * polynomial(points) ** 2)
    return (points + 1) / 2, weights / 2
