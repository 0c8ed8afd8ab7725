"""The limit's measure at the stage times of a Runge–Kutta depth solve, with a separate sample at each."""

import math

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from .._checks import at_least, instance
from .._depth import one_depth
from ..solvers._equal_eighths import EqualEighths
from ._base import AbstractMeasure, check_particles, check_weights

# More would be a slip: every step holds particles of its own.
_MOST_STEPS = 10**6


class Staged(AbstractMeasure):
    r"""Particles at the stage times t_i of a fixed-step Runge–Kutta depth solve, with a separate sample at each time.

    \[ \rho(d\theta, t)\,dt = \sum_i w_i \sum_j a_{ij} \delta_{\theta_{ij}}, \qquad w_i = \text{the method's weights
    } b_i / \text{steps}. \]

    [`wgf.AveragedODE`][] with the same solver and steps evaluates exactly the law of node i at its stage i. Particles
    are not interpolated, so nodes may hold independent samples. Their errors average out over depth, as those of a
    finite model's layers do. Stages that share a time (the end of a step and the start of the next) share a node,
    whose weight is the sum of theirs. At any other depth the law is that of the nearest node.

    **Arguments:**

    - `particles`: arrays with leading axes `[nodes, M]`.
    - `weights`: `[M]` or `[nodes, M]`, not negative, with sum 1 over M; default 1/M. A particle of weight zero is a
      tracer.
    - `solver`: an explicit Runge–Kutta method of Diffrax whose nodes have positive weights, see the table.
    - `steps`: the number of constant steps.

    | solver | order | nodes |
    |---|---|---|
    | `EqualEighths()` | 4 | 8, of equal weight |
    | `ThreeEighths()` | 4 | 4 |
    | `diffrax.Bosh3()` | 3 (2 for the adjoint) | 3 |
    | `diffrax.Ralston()` | 2 | 2 |

    **Raises:** `ValueError` naming the argument if the solver has a node of weight zero or below (`diffrax.Tsit5()`),
    shapes do not fit, or numbers are not finite.

    Cost of a velocity: stages × `steps` × M encoder evaluations per prompt. With n = nodes × M independent particles,
    the variance of a mean is nodes × Σ w_i² times that of one sample of n particles. The factor is 1 for the default,
    5/4 for the 3/8 rule and 29/27 for Bosh3. A [`wgf.measures.Spectral`][] measure, whose stages share one sample of M
    particles, costs the same and has the variance of M particles.

    Good values: the default solver, which is best at every accuracy that benchmarks/work_precision.py measures. The
    3/8 rule has half as many sequential stages, each of twice the width. Use it for particles too few to fill a device.
    """

    particles: PyTree[Array]
    weights: Float[Array, "depth width"]
    solver: diffrax.AbstractERK
    steps: int = eqx.field(static=True)

    def __init__(
        self,
        particles: PyTree[ArrayLike],
        weights: ArrayLike | None = None,
        *,
        solver: diffrax.AbstractERK = EqualEighths(),  # noqa: B008 (an immutable module)
        steps: int = 1,
    ):
        self.particles, (nodes, _) = check_particles(particles, "[nodes, width]")
        self.weights = check_weights(weights, self.particles)
        times, _ = stage_nodes(solver, steps)
        if len(times) != nodes:
            raise ValueError(
                f"`particles` must have {len(times)} nodes, the stage times of {steps} steps of "
                f"{type(solver).__name__}; got {nodes}."
            )
        self.solver = solver
        self.steps = at_least("steps", steps, 1)

    @property
    def depths(self) -> Float[Array, " depth"]:
        """The stage times t_i, increasing."""
        return jnp.asarray(stage_nodes(self.solver, self.steps)[0], self.weights.dtype)

    @property
    def depth_weights(self) -> Float[Array, " depth"]:
        """The method's weights at the stage times."""
        return jnp.asarray(stage_nodes(self.solver, self.steps)[1], self.weights.dtype)

    def at(self, depth: ArrayLike) -> tuple[PyTree[Array], Float[Array, " width"]]:
        """The particles and weights of the node nearest to t."""
        node = jnp.argmin(jnp.abs(self.depths - one_depth("depth", depth)))
        return jax.tree.map(lambda leaf: leaf[node], self.particles), self.weights[node]


def stage_nodes(solver: diffrax.AbstractERK, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct stage times of a depth solve from 0 to 1, increasing, and their weights."""
    times, _, weights = _stages(solver, steps)
    return times, weights


def node_of_stages(solver: diffrax.AbstractERK, steps: int) -> Int[np.ndarray, "steps stages"]:
    """The number of each stage's node, among the distinct stage times."""
    return _stages(solver, steps)[1]


def _stages(solver: diffrax.AbstractERK, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct stage times, the number of each stage's time among them, and the weights of the times."""
    steps = at_least("steps", steps, 1, _MOST_STEPS)
    example = "an explicit Runge–Kutta method of Diffrax, e.g. wgf.measures.EqualEighths()"
    tableau = instance("solver", solver, diffrax.AbstractERK, example).tableau
    if not isinstance(tableau, diffrax.ButcherTableau):
        raise ValueError(f"`solver` must be {example}; got {type(solver).__name__}, which has several tableaux.")
    # A last stage of weight zero only serves error control; the depth solve skips it.
    stages = tableau.num_stages - int(tableau.b_sol[-1] == 0)
    within = np.concatenate([[0.0], tableau.c])[:stages]
    every = ((np.arange(steps)[:, None] + within) / steps).ravel()
    times, node = np.unique(every.round(12), return_inverse=True)
    weights = np.bincount(node, np.tile(tableau.b_sol[:stages] / steps, steps))
    if weights.min() <= 0:
        raise ValueError(
            f"`solver` must give every stage time a positive weight; got {type(solver).__name__} with weights "
            f"{weights.round(4).tolist()}. Use wgf.measures.EqualEighths()."
        )
    assert math.isclose(weights.sum(), 1)
    return times, node.reshape(steps, stages), weights
