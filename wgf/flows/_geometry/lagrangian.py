"""The Wasserstein geometry along characteristics: particles move, each by a gradient divided by its mass."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...measures import Layered, at_coordinates, coordinates
from ...models import AbstractModel
from ...solvers._particle_norm import ParticleNorm
from .base import AbstractGeometry, Evaluation, error_control, value_and_outputs


class Lagrangian(AbstractGeometry):
    r"""Particles of a measure, \( \dot\theta_{ij} = -\frac{1}{w_i a_{ij}} \frac{\partial Q}{\partial \theta_{ij}}
    \).

    With masses 1/(LM) this is the gradient flow of the finite model, equation 2.7; on the measure of the limit it is
    the Wasserstein flow along characteristics, equation 3.3.

    **Source:** arXiv:2410.23610, equations 2.7 and 3.3.
    """

    def parameters(self, model: AbstractModel) -> PyTree[Array]:
        """The particles."""
        return model.measure.particles

    def place(self, model: AbstractModel, parameters: PyTree[Array]) -> AbstractModel:
        """Put the particles."""
        return model.with_particles(parameters)

    def pack(self, parameters: PyTree[Array]) -> list[Array]:
        """All particles as vectors in one array `[depth, width, P]`."""
        return [coordinates(parameters)]

    def unpack(self, packed: list[Array], like: PyTree[Array]) -> PyTree[Array]:
        """The particles."""
        return at_coordinates(packed[0], like)

    def evaluate(self, objective: Callable[[Any], Float[Array, ""]], model: AbstractModel) -> Evaluation:
        r"""Differentiate Q by the particles and divide by their masses.

        The dissipation is \( \int_0^1 \int \|v\|^2 d\rho\,dt = \sum_{ij} w_i a_{ij} \|v_{ij}\|^2 = -dQ/d\tau \).
        """
        massive, particles = _with_vestigial_masses(model), model.measure.particles

        def value(packed):
            return value_and_outputs(objective, massive.with_particles(self.unpack(packed, particles)))

        (q, outputs), (gradient,) = jax.value_and_grad(value, has_aux=True)(self.pack(particles))
        # Equations 2.7 and 3.3.
        velocity = -gradient / massive.measure.masses[:, :, None]
        dissipation = jnp.sum(model.measure.masses * jnp.sum(velocity**2, axis=2))
        return Evaluation(q, outputs, [velocity], dissipation, jnp.zeros_like(dissipation))

    def norm(self, model: AbstractModel) -> ParticleNorm:
        """The worst particle's error."""
        return ParticleNorm(model.measure.weights)

    def solver(self) -> diffrax.AbstractSolver:
        """A Runge–Kutta pair of orders 5 and 4."""
        return diffrax.Tsit5()

    def controller(self, rtol, atol, norm, taus) -> diffrax.AbstractStepSizeController:
        """Bound each step's error."""
        return error_control(rtol, atol, norm, taus)

    def noise(self, model: AbstractModel) -> PyTree[jax.ShapeDtypeStruct]:
        """Independent noise for every particle; shared by all nodes if particles are interpolated over depth.

        The flow depends on the law at each depth alone, so noise may depend on depth in any way. Shared noise keeps
        particles smooth in depth and the law between nodes right. Independent noise would average out between nodes.
        """
        depth = None if isinstance(model.measure, Layered) else 1

        def shape(leaf):
            return jax.ShapeDtypeStruct((depth or leaf.shape[0], *leaf.shape[1:]), leaf.dtype)

        return jax.tree.map(shape, model.measure.particles)


def _with_vestigial_masses(model: AbstractModel) -> AbstractModel:
    """Give particles of weight zero a mass that changes no sum but is not zero.

    A weight of 2^-66 (2^-332 in float64) is lost in rounding wherever a particle of positive weight contributes, and
    dividing a gradient by a power of two is exact. Tracers therefore need no second code path.
    """
    weights = model.measure.weights
    vestige = jnp.asarray(2.0**-66 if weights.dtype.itemsize <= 4 else 2.0**-332, weights.dtype)
    return eqx.tree_at(lambda m: m.measure.weights, model, jnp.where(weights > 0, weights, vestige))
