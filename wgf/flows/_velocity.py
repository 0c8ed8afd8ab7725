"""The velocity field of a flow, v = −∇_θ δQ/δρ for a measure."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._backend.mesh import on_own_mesh
from .._backend.outlining import outline
from .._checks import check_float, instance, shown
from .._finite import finite_leaves
from ..measures import Eulerian, Layered, at_coordinates, coordinates
from ..models import AbstractModel
from ..objective import Objective
from ._geometry.base import AbstractGeometry, Evaluation
from ._geometry.euclidean import Euclidean
from ._geometry.finite_volume import FiniteVolume
from ._geometry.lagrangian import Lagrangian
from ._tracers import joined, strip_depths, strips


@on_own_mesh
def velocity(objective: Callable[[Any], Float[Array, ""]], model: PyTree) -> PyTree[Array]:
    r"""The velocity dθ/dτ of every particle, \( v_{ij} = -\frac{1}{w_i a_{ij}} \frac{\partial Q}{\partial
    \theta_{ij}} \).

    The formula holds for both models. For the finite one it is \( -LM\,\nabla Q \), the gradient flow. For the limit it
    is the velocity \( -\nabla_\theta\,\delta Q/\delta\rho \) of the Wasserstein flow, projected on the polynomials in
    depth that the measure represents. It is the exact gradient of the discretised Q, so for any number of nodes Q
    falls at exactly the rate of the dissipation.

    **Arguments:**

    - `objective`: Q, [`wgf.Objective`][], or any function of the model.
    - `model`: a [`wgf.Transformer`][] or a [`wgf.AveragedODE`][]; any other Equinox module moves by \( -\nabla Q \),
      with \( \nabla_z Q = \partial_x Q + i\,\partial_y Q \) for complex z = x + iy.

    **Raises:** `ValueError` if `objective` is not a function, or `model` holds no array that can move, or NaN or
    infinity in a known one.

    **Returns:** the velocities, of the structure and shapes of `model.measure.particles` (of any other module: of its
    inexact arrays; of a [`wgf.measures.Eulerian`][] measure: the rates of its weights). Particles of weight zero get
    the velocity that a particle of vanishing mass has.

    Cost: one value and gradient of Q.

    The equations are at `wgf.flows._geometry.Lagrangian` and `wgf.flows._geometry.FiniteVolume`.

    **Source:** arXiv:2410.23610, equations 2.7 and 3.3.
    """
    check_posed(objective, model)
    geometry = geometry_of(model)
    return geometry.unpack(evaluate(geometry, objective, model).velocity, geometry.parameters(model))


def geometry_of(model: PyTree, temperature: ArrayLike = 0.0) -> AbstractGeometry:
    """The geometry in which a model descends: that of its measure, or the Euclidean one of a plain module."""
    if not isinstance(model, AbstractModel):
        return Euclidean()
    for leaf in jax.tree.leaves(model.measure.particles):
        if jnp.iscomplexobj(leaf):
            raise ValueError(
                f"`model.measure` must hold particles of real numbers; got {leaf.dtype}. Make the real and the "
                "imaginary part two arrays of a particle."
            )
    if isinstance(model.measure, Eulerian):
        return FiniteVolume(jnp.asarray(temperature, model.measure.weights.dtype))
    return Lagrangian()


def check_posed(objective: Callable[[Any], Float[Array, ""]], model: PyTree) -> None:
    """Raise `ValueError` unless the objective is a function, and the model holds finite arrays of one type to move."""
    if isinstance(objective, AbstractModel) and isinstance(model, Objective):
        raise ValueError("`objective` must come before `model`; got them in the other order. Swap the two.")
    if isinstance(objective, type) or not callable(objective):
        raise ValueError(
            f"`objective` must be a function of the model, e.g. wgf.Objective(prompts); got {shown(objective)}."
        )
    if isinstance(model, AbstractModel):
        model.check()
        model.check_finite()
    parameters = geometry_of(model).parameters(model)
    moved = jax.tree.leaves(parameters)
    if not moved:
        raise ValueError(
            f"`model` must hold at least one array of real or complex numbers to move; got {shown(model)}."
        )
    # Of a complex number, the type of its parts.
    types = sorted({str(jnp.finfo(leaf.dtype).dtype) for leaf in moved})
    if len(types) > 1:
        raise ValueError(f"`model` must hold arrays of one precision to move; got {types}. Cast them with `.astype`.")
    check_float("model", jnp.dtype(types[0]))
    finite_leaves("model", parameters)


@outline
def evaluate(geometry: AbstractGeometry, objective: Callable[[Any], Float[Array, ""]], model: PyTree) -> Evaluation:
    """Evaluate Q and its velocity field at a model."""
    return geometry.evaluate(objective, model)


def tracers_of(model: PyTree) -> tuple[Layered, ...]:
    """The measures of tracers that move with a model."""
    return model.tracers if isinstance(model, AbstractModel) else ()


def tracer_velocity(objective: Objective, model: AbstractModel) -> tuple[PyTree[Array], ...]:
    r"""The velocity \( -\nabla_\theta\,\delta Q/\delta\rho(\theta, t) \) of the model's tracers at their own depths.

    **Returns:** for each of `model.tracers` a PyTree of the structure and shapes of its particles. Cost: one forward
    and one backward solve, and one gradient of the encoder per tracer and prompt.
    """
    instance("objective", objective, Objective, "a wgf.Objective")
    instance("model", model, AbstractModel, "a wgf.Transformer or a wgf.AveragedODE").check()
    if not model.tracers:
        return ()
    moved = strip_velocity(objective, model, strips([measure.particles for measure in model.tracers]))
    return joined(moved, model.tracers)


@outline
def strip_velocity(
    objective: Objective, model: AbstractModel, tracers: Float[Array, "strips width dim"]
) -> Float[Array, "strips width dim"]:
    """The values of [`wgf.flows.tracer_velocity`][], for and as strips of the layers of all `model.tracers`."""
    first_variation = objective.first_variation(model)
    like = model.tracers[0].particles

    def of_strip(inputs):
        strip, depth = inputs
        particles = jax.tree.map(lambda leaf: leaf[0], at_coordinates(strip[None], like))
        gradient = first_variation.gradient(particles, depth)
        return -coordinates(jax.tree.map(lambda leaf: leaf[None], gradient))[0]

    return jax.lax.map(of_strip, (tracers, strip_depths(model.tracers)))
