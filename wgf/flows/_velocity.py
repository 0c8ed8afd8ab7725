"""The velocity field v = −∇_θ δQ/δρ of the Wasserstein gradient flow."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._outline import outline
from ..measures import Layered
from ..models import AbstractModel
from ..objective import Objective


def velocity(objective: Objective, model: AbstractModel) -> PyTree[Array]:
    r"""The velocity dθ/dτ of every particle, \( v_{ij} = -\frac{1}{w_i a_{ij}} \frac{\partial Q}{\partial
    \theta_{ij}} \).

    One formula for both models: for the finite one it is \( -LM\,\nabla Q \), the gradient flow; for the limit it is
    the velocity \( -\nabla_\theta\,\delta Q/\delta\rho \) of the Wasserstein flow, projected on the polynomials in
    depth that the measure holds. Being the gradient of the discretised Q, it makes Q fall at exactly the rate of the
    dissipation, whatever the number of nodes.

    **Arguments:**

    - `objective`: Q.
    - `model`: a [`wgf.Transformer`][] or a [`wgf.AveragedODE`][].

    **Returns:** the velocities, of the structure and shapes of `model.measure.particles`. Particles of weight zero
    get the velocity that a particle of vanishing mass has.

    Cost: one value and gradient of Q.

    **Source:** arXiv:2410.23610, equations 2.7 and 3.3.
    """
    return evaluate(objective, model).velocity


class Evaluation(eqx.Module):
    """One value and gradient of Q: the objective, the outputs, the velocity and the dissipation."""

    objective: Float[Array, ""]
    outputs: Float[Array, "batch *classes"]
    velocity: PyTree[Array]
    dissipation: Float[Array, ""]


@outline
def evaluate(objective: Objective, model: AbstractModel) -> Evaluation:
    """Evaluate Q and its velocity field at a model."""
    massive = _with_vestigial_masses(model)

    def value(particles):
        return objective.value_and_outputs(massive.with_particles(particles))

    (q, outputs), gradient = jax.value_and_grad(value, has_aux=True)(model.measure.particles)
    masses = massive.measure.masses
    velocities = jax.tree.map(lambda leaf: -leaf / _expand(masses, leaf), gradient)
    return Evaluation(q, outputs, velocities, dissipation(velocities, model.measure.masses))


def dissipation(velocities: PyTree[Array], masses: Float[Array, "depth width"]) -> Float[Array, ""]:
    r"""The rate at which Q falls, \( \int_0^1 \int \|v\|^2 d\rho\,dt = \sum_{ij} w_i a_{ij} \|v_{ij}\|^2 = -dQ/d\tau
    \).
    """
    leaves = jax.tree.leaves(velocities)
    return sum((jnp.sum(_expand(masses, leaf) * leaf**2) for leaf in leaves), jnp.zeros((), masses.dtype))


@outline
def tracer_velocity(objective: Objective, model: AbstractModel) -> tuple[PyTree[Array], ...]:
    r"""The velocity \( -\nabla_\theta\,\delta Q/\delta\rho(\theta, t) \) of the model's tracers at their own depths.

    **Returns:** for each of `model.tracers` a PyTree of the structure and shapes of its particles. Cost: one forward
    and one backward solve, and one gradient of the encoder for each tracer and prompt.
    """
    if not model.tracers:
        return ()
    first_variation = objective.first_variation(model)

    def at_layer(inputs):
        particles, depth = inputs
        return jax.tree.map(jnp.negative, first_variation.gradient(particles, depth))

    def of_measure(measure: Layered):
        return jax.lax.map(at_layer, (measure.particles, measure.depths))

    return tuple(of_measure(measure) for measure in model.tracers)


def _with_vestigial_masses(model: AbstractModel) -> AbstractModel:
    """Give weight-zero particles a mass too small to change any sum, but that can be divided by.

    A contribution of 2^-66 (2^-332 in float64) of a unit particle's is lost in rounding wherever a particle of
    weight above zero contributes; dividing a gradient by a power of two is exact. So tracers cost no second code path.
    """
    weights = model.measure.weights
    vestige = jnp.asarray(2.0**-66 if weights.dtype.itemsize <= 4 else 2.0**-332, weights.dtype)
    return eqx.tree_at(lambda m: m.measure.weights, model, jnp.where(weights > 0, weights, vestige))


def _expand(masses: Float[Array, "depth width"], leaf: Array) -> Array:
    return masses.reshape(masses.shape + (1,) * (leaf.ndim - 2))
