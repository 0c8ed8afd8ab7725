"""A Rosenbrock–W method with the Gauss–Newton Jacobian, for few prompts, small weight decay and very long times."""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._backend.compat import ω
from ..objective import Objective
from ._geometry.lagrangian import Lagrangian
from ._state import State

# The coefficients of ROS34PW2.
GAMMA = 0.4358665215084590
STAGES = np.array(
    [
        [0, 0, 0, 0],
        [0.8717330430169180, 0, 0, 0],
        [0.8445706001536942, -0.1129906423648419, 0, 0],
        [0, 0, 1, 0],
    ]
)
CORRECTIONS = np.array(
    [
        [0, 0, 0, 0],
        [-0.8717330430169180, 0, 0, 0],
        [-0.9033805701304408, 0.05418067238809533, 0, 0],
        [0.2421238070609535, -1.2232505839045147, 0.5452602553351021, 0],
    ]
)
SOLUTION = np.array([0.2421238070609535, -1.2232505839045147, 1.5452602553351020, 0.4358665215084590])
EMBEDDED = np.array([0.3781090314581937, -0.09604229221242318, 0.5, 0.2179332607542295])


def _bend() -> np.ndarray:
    """The weights d, least in norm, that make y0 + θ(y1 − y0) + θ(θ − 1) h Σ d_i k_i of second order at every θ."""
    conditions = np.stack([np.ones(4), STAGES.sum(axis=1), CORRECTIONS.sum(axis=1) + GAMMA])
    return np.linalg.lstsq(conditions, np.array([0, 0.5, 0]))[0]


BEND = _bend()


class Parabola(diffrax.AbstractLocalInterpolation):
    """y0 + θ(y1 − y0) + θ(θ − 1) bend, from the stages alone: the slope at y1 is dominated by stiff components."""

    t0: Any
    t1: Any
    y0: PyTree[Array]
    y1: PyTree[Array]
    bend: PyTree[Array]

    def evaluate(self, t0, t1=None, left: bool = True):
        """The solution at a time, or its change between two."""
        del left
        if t1 is not None:
            return (self.evaluate(t1) ** ω - self.evaluate(t0) ** ω).ω
        share = (t0 - self.t0) / jnp.where(self.t1 > self.t0, self.t1 - self.t0, 1)
        change = self.y1**ω - self.y0**ω
        return (self.y0**ω + share * change + share * (share - 1) * self.bend**ω).ω


class RosenbrockW(diffrax.AbstractAdaptiveSolver):
    r"""The linearly implicit method ROS34PW2, with the Gauss–Newton part of the flow's Jacobian.

    A gradient flow that fits its labels has as many stiff directions as outputs. Its Jacobian is

    \[ -\lambda - m^{-1} J^\top \ell''(J\,\cdot) + O(\text{residuals}), \]

    with J the derivative of the outputs and m the particles' masses. A W-method keeps its order with any matrix. This
    one uses the first two terms, which the Woodbury formula inverts by a Cholesky factorisation of the B × B tangent
    kernel \( J m^{-1} J^\top \). Accuracy alone then bounds the steps: their number hardly depends on λ.

    For a [`wgf.Objective`][] with one output per prompt, on models of particles without tracers.

    Cost per step: four velocities, one gradient of every output, and B³/3 operations for the factors. Memory: B copies
    of the particles. L-stable, order 3, with an embedded method of order 2. Good values: rtol 1e-3 and 1e-4.

    **Raises:** `ValueError` for other objectives or models.

    **Source:** J. Rang, L. Angermann, *New Rosenbrock W-methods of order 3 for partial differential algebraic
    equations of index 1*, BIT 45 (2005).
    """

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., Parabola]] = Parabola

    def order(self, terms):
        """Order 3."""
        return 3

    def init(self, terms, t0, t1, y0, args):
        """There is no state between steps."""
        _check(args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """Four stages, each one velocity and one solve with the same factors."""
        del solver_state, made_jump
        h = t1 - t0
        solve = _factorise(GAMMA * h, y0, args)
        slopes: list[State] = []
        for i in range(4):
            place, drag = _sum(STAGES[i] * h, slopes, y0), _sum(CORRECTIONS[i] / GAMMA, slopes, y0)
            slope = terms.vf(t0 + STAGES[i].sum() * h, (y0**ω + place**ω).ω, args)
            slopes.append((solve((slope**ω + drag**ω).ω) ** ω - drag**ω).ω)
        y1 = (y0**ω + _sum(SOLUTION * h, slopes, y0) ** ω).ω
        error = _sum((SOLUTION - EMBEDDED) * h, slopes, y0)
        dense = {"y0": y0, "y1": y1, "bend": _sum(BEND * h, slopes, y0)}
        return y1, error, dense, None, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args):
        """The vector field."""
        return terms.vf(t0, y0, args)


def _check(args: Any) -> None:
    if not (isinstance(args, tuple) and isinstance(args[0], Lagrangian) and isinstance(args[1], Objective)):
        raise ValueError("`solver` RosenbrockW needs a wgf.Objective and a model of particles. Pass wgf.flows.RKC().")
    _, objective, model = args
    if model.tracers:
        raise ValueError("`solver` RosenbrockW does not move tracers; got a model with tracers. Pass wgf.flows.RKC().")
    shape = jax.eval_shape(objective.readout, objective.prompts.tokens).shape
    if len(shape) != 1:
        raise ValueError(
            f"`solver` RosenbrockW needs one output per prompt; got outputs of shape {shape}. Pass wgf.flows.RKC()."
        )


def _sum(weights: Any, slopes: list[State], like: State) -> State:
    """The weighted sum of the slopes so far; zero if there are none."""
    total = jax.tree.map(jnp.zeros_like, like)
    for weight, slope in zip(weights, slopes, strict=False):
        total = (total**ω + weight * slope**ω).ω
    return total


def _factorise(step: Any, state: State, args: Any) -> Callable[[State], State]:
    """The inverse of 1 + step (λ + m⁻¹ JᵀJ) on the parameters. J has one row √(μ ℓ'') ∂output/∂θ per prompt."""
    _, objective, model = args
    jacobian, masses = _outputs_jacobian(state, args), _masses(state, model)
    scale = 1 + step * objective.weight_decay
    kernel = jacobian / masses[None] @ jacobian.T
    factors = jsl.cho_factor(scale * jnp.eye(len(kernel), dtype=kernel.dtype) + step * kernel)

    def solve(right: State) -> State:
        flat, unravel = ravel_pytree(right.parameters)
        stiff = jacobian.T @ jsl.cho_solve(factors, jacobian @ flat) / masses
        return eqx.tree_at(lambda s: s.parameters, right, unravel((flat - step * stiff) / scale))

    return solve


def _outputs_jacobian(state: State, args: Any) -> Float[Array, "batch parameters"]:
    """√(μ ℓ'') ∂output/∂θ, one row per prompt. Negative curvature of the loss counts as zero."""
    geometry, objective, model = args
    prompts = objective.prompts

    def output(parameters, tokens):
        placed = eqx.tree_at(lambda s: s.parameters, state, parameters).place(geometry, model)
        return objective.readout(placed(tokens[None]))[0]

    outputs, gradients = jax.vmap(jax.value_and_grad(output), in_axes=(None, 0))(state.parameters, prompts.tokens)
    slope = jax.grad(lambda o: jnp.sum(objective.loss(o, prompts.labels)))
    curvature = jax.jvp(slope, (outputs,), (jnp.ones_like(outputs),))[1]
    rows = jnp.concatenate([leaf.reshape(len(outputs), -1) for leaf in gradients], axis=1)
    return jnp.sqrt(prompts.weights * jnp.maximum(curvature, 0))[:, None] * rows


def _masses(state: State, model: Any) -> Float[Array, " parameters"]:
    """The mass of each parameter's particle; infinite for particles of weight zero, which are not stiff."""
    masses = jnp.where(model.measure.masses > 0, model.measure.masses, jnp.inf)
    spread = [jnp.broadcast_to(masses.reshape(masses.shape + (1,) * (x.ndim - 2)), x.shape) for x in state.parameters]
    return jnp.concatenate([leaf.ravel() for leaf in spread])
