"""The first variation δQ/δρ of the objective."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._backend.compiled import compiled
from .._backend.precision import Module
from .._checks import numbers
from .._depth import one_depth
from ..models import AbstractAdjoint


class FirstVariation(Module):
    r"""The change of Q per unit of mass added at θ and depth t,

    \[ \frac{\delta Q}{\delta \rho}(\theta, t)
       = E_\mu \langle g(T_\rho(H, t), \theta),\, p_\rho(H, t) \rangle + \frac{\lambda}{2} \|\theta\|^2. \]

    Returned by [`wgf.Objective.first_variation`][]. The flow's velocity is \( v(\theta, t) = -\nabla_\theta\, \delta
    Q/\delta\rho \).

    **Source:** arXiv:2410.23610, equation 3.4.
    """

    adjoint: AbstractAdjoint
    prompt_weights: Float[Array, " batch"]
    weight_decay: Float[Array, ""]

    def __call__(self, particle: PyTree[Array], depth: ArrayLike) -> Float[Array, ""]:
        """The value at one particle θ (no leading axes) and one depth t in [0, 1].

        **Raises:** `ValueError` if t is not traced and lies outside [0, 1].
        """
        return self._value(_arrays("particle", particle), one_depth("depth", depth))

    def gradient(self, particles: PyTree[Array], depth: ArrayLike) -> PyTree[Array]:
        """The gradients in θ at many particles (leading axis `[count]`) and one depth, in one pass.

        **Raises:** `ValueError` if t is not traced and lies outside [0, 1].
        """
        return self._gradient(_arrays("particles", particles), one_depth("depth", depth))

    # The depth is an array, so that no program is compiled per depth.
    @compiled
    def _value(self, particle: PyTree[Array], depth: Float[Array, ""]) -> Float[Array, ""]:
        return self._total(jax.tree.map(lambda leaf: leaf[None], particle), depth, 1)

    @compiled
    def _gradient(self, particles: PyTree[Array], depth: Float[Array, ""]) -> PyTree[Array]:
        count = jax.tree.leaves(particles)[0].shape[0]
        return jax.grad(self._total)(particles, depth, count)

    def _total(self, particles: PyTree[Array], depth: ArrayLike, count: int) -> Float[Array, ""]:
        masses = jnp.ones(count, self.prompt_weights.dtype)
        paired = self.adjoint.pairing(particles, masses, depth, self.prompt_weights)
        squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(particles))
        return paired + self.weight_decay / 2 * squares


def _arrays(argument: str, particles: PyTree[Array]) -> PyTree[Array]:
    return jax.tree.map(lambda leaf: numbers(argument, leaf), particles)
