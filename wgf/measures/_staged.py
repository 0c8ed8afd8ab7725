"""The limit's measure at the stage times of a Runge–Kutta depth solve: each has a sample of its own."""

import math

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._checks import at_least, instance
from .._depth import check_depth
from ..solvers._equal_eighths import EqualEighths
from ._base import AbstractMeasure, check_particles, check_weights


class Staged(AbstractMeasure):
    r"""Particles at the stage times t_i of a fixed-step Runge–Kutta depth solve, each time with a sample of its own.

    \[ \rho(d\theta, t)\,dt = \sum_i w_i \sum_j a_{ij} \delta_{\theta_{ij}}, \qquad w_i = \text{the method's weights
    } b_i / \text{steps}. \]

    [`wgf.AveragedODE`][] with the same solver and steps meets exactly the law of node i at its stage i: particles are
    not interpolated, so that nodes may hold independent samples, whose errors average down over depth as those of a
    finite model's layers do. Stages that share a time (the end of a step and the beginning of the next) share a node,
    of the sum of their weights. At other depths the law is that of the nearest node.

    **Arguments:**

    - `particles`: arrays with leading axes `[nodes, M]`.
    - `weights`: `[M]` or `[nodes, M]`, not negative, of sum 1 over M; default 1/M. Zero makes a tracer.
    - `solver`: an explicit Runge–Kutta method of Diffrax whose nodes have positive weight: `EqualEighths()`, order 4
      in 8 nodes of equal weight; `ThreeEighths()`, order 4 in 4; `diffrax.Bosh3()`, order 3 (2 for the adjoint) in 3;
      `diffrax.Ralston()`, order 2 in 2.
    - `steps`: the number of constant steps.

    A velocity costs stages × `steps` × M encoder evaluations a prompt. With n = nodes × M independent particles the
    variance of a mean is nodes × Σ w_i² times that of one sample of n: 1 for the default, 5/4 for the 3/8 rule, 29/27
    for Bosh3; one sample of M shared by all stages of a [`wgf.measures.Spectral`][] measure costs as much and has the
    variance of M. Best: the default, at every accuracy that benchmarks/work_precision.py measures. The 3/8 rule
    has half the stages, which follow one another, each of twice the width: for particles too few to fill a device.

    **Raises:** `ValueError` naming the argument if the solver has a node of weight zero or below (`diffrax.Tsit5()`),
    shapes do not fit, or numbers are not finite.
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
        node = jnp.argmin(jnp.abs(self.depths - check_depth("depth", depth)))
        return jax.tree.map(lambda leaf: leaf[node], self.particles), self.weights[node]


def stage_nodes(solver: diffrax.AbstractERK, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The different stage times of a depth solve from 0 to 1, increasing, and the weight of each."""
    steps = at_least("steps", steps, 1)
    example = "an explicit Runge–Kutta method of Diffrax, e.g. wgf.measures.EqualEighths()"
    tableau = instance("solver", solver, diffrax.AbstractERK, example).tableau
    if not isinstance(tableau, diffrax.ButcherTableau):
        raise ValueError(f"`solver` must be {example}; got {type(solver).__name__}, which has several tableaux.")
    # A last stage without weight serves error control alone, and the depth solve leaves it out.
    stages = tableau.num_stages - int(tableau.b_sol[-1] == 0)
    within = np.concatenate([[0.0], tableau.c])[:stages]
    every = ((np.arange(steps)[:, None] + within) / steps).ravel()
    times, node = np.unique(every.round(12), return_inverse=True)
    weights = np.bincount(node, np.tile(tableau.b_sol[:stages] / steps, steps))
    if weights.min() <= 0:
        raise ValueError(
            "`solver` must give every stage time a positive weight (wgf.measures.EqualEighths() does); got "
            f"{type(solver).__name__} with weights {weights.round(4).tolist()}."
        )
    assert math.isclose(weights.sum(), 1)
    return times, weights
