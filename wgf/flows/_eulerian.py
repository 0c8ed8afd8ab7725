"""The Wasserstein geometry on a fixed grid: masses of cells move, by finite volumes."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..measures import Eulerian
from ..models import AbstractModel
from ._courant import CourantController
from ._dynamics import AbstractDynamics, Evaluation, value_and_outputs
from ._finite_volume import finite_volume_rate


class FiniteVolume(AbstractDynamics):
    r"""Weights of a [`wgf.measures.Eulerian`][] measure, in the potential of the discretised Q and the temperature σ,

    \[ \xi_{ij} = \frac{1}{w_i} \frac{\partial Q}{\partial a_{ij}} + \sigma \log \frac{a_{ij}}{|C_j|}. \]

    The free energy \( F = Q - \sigma S \) falls at exactly the rate of the dissipation, and at σ > 0 comes to rest
    where ξ is constant: at the discrete Gibbs law \( a_{ij} \propto \exp(-\tfrac1\sigma\,\delta Q/\delta\rho) \).

    **Source:** Carrillo, Chertock, Huang (2015), section 2; for the free energy, S. Mei, A. Montanari, P.-M. Nguyen,
    *A mean field view of the landscape of two-layer neural networks*, PNAS 115 (2018).
    """

    temperature: Float[Array, ""]

    def parameters(self, model: AbstractModel) -> Float[Array, "*saves depth width"]:
        """The weights."""
        return model.measure.weights

    def place(self, model: AbstractModel, parameters: Float[Array, "*saves depth width"]) -> AbstractModel:
        """Put the weights; what rounding has left below zero is zero."""
        return eqx.tree_at(lambda m: m.measure.weights, model, jnp.maximum(parameters, 0))

    def pack(self, parameters: Float[Array, "depth width"]) -> list[Array]:
        """The weights."""
        return [parameters]

    def unpack(self, packed: list[Array], like: Float[Array, "depth width"]) -> Float[Array, "depth width"]:
        """The weights."""
        return packed[0]

    def evaluate(self, objective: Callable[[Any], Float[Array, ""]], model: AbstractModel) -> Evaluation:
        """Differentiate Q by the weights and move mass down its slope."""
        measure = model.measure
        assert isinstance(measure, Eulerian)

        def value(weights):
            moved = eqx.tree_at(lambda m: m.measure.weights, model, weights)
            return value_and_outputs(objective, moved)

        (q, outputs), gradient = jax.value_and_grad(value, has_aux=True)(measure.weights)
        # The log of a positive number, empty cells included: their neighbours then fill them at a great finite speed.
        floor = jnp.maximum(measure.weights, jnp.finfo(measure.weights.dtype).tiny)
        potential = gradient / measure.depth_weights[:, None] + self.temperature * jnp.log(floor)
        grid = (measure.weights.shape[0], *measure.cells)
        rate = jax.vmap(finite_volume_rate, in_axes=(0, 0, None))(
            measure.weights.reshape(grid), potential.reshape(grid), measure.spacing
        )
        return Evaluation(
            objective=q,
            outputs=outputs,
            velocity=[rate.masses.reshape(measure.weights.shape)],
            dissipation=jnp.sum(measure.depth_weights * rate.dissipation),
            # Near rest the velocity vanishes and diffusion alone bounds a stable step, at Δθ²/(2σ) in one dimension.
            courant=jnp.maximum(jnp.max(rate.courant), 2 * self.temperature * jnp.sum(measure.spacing**-2)),
        )

    def norm(self, model: AbstractModel) -> Callable[[list[Array]], Float[Array, ""]]:
        """The total variation at the worst depth."""
        return _total_variation

    def solver(self) -> diffrax.AbstractSolver:
        """Heun's method, which is the strong-stability-preserving method of order 2."""
        return diffrax.Heun()

    def controller(self, rtol, atol, norm, taus) -> diffrax.AbstractStepSizeController:
        """Bound each step's error, against a mass of 1, and its Courant number.

        Steps end at the saved times, since an interpolation between steps would not keep masses positive.
        """
        inner = diffrax.PIDController(0.0, rtol + atol, norm=norm)
        return diffrax.ClipStepSizeController(CourantController(inner), step_ts=taus)

    def noise(self, model: AbstractModel) -> None:
        """None: temperature is diffusion."""
        return None


def _total_variation(packed: list[Float[Array, "depth width"]]) -> Float[Array, ""]:
    (weights,) = packed
    return jnp.max(jnp.sum(jnp.abs(weights), axis=1))
