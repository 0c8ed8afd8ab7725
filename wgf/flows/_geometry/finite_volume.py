"""The Wasserstein geometry on a fixed grid: masses of cells move, by finite volumes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...measures import Eulerian
from ...models import AbstractModel
from ...solvers._courant import CourantController
from .base import AbstractGeometry, Evaluation, value_and_outputs


class FiniteVolume(AbstractGeometry):
    r"""Weights of a [`wgf.measures.Eulerian`][] measure, in the potential of the discretised Q and the temperature σ,

    \[ \xi_{ij} = \frac{1}{w_i} \frac{\partial Q}{\partial a_{ij}} + \sigma \log \frac{a_{ij}}{|C_j|}. \]

    The free energy \( F = Q - \sigma S \) falls at exactly the rate of the dissipation, and at σ > 0 comes to rest
    where ξ is constant: at the discrete Gibbs law \( a_{ij} \propto \exp(-\tfrac1\sigma\,\delta Q/\delta\rho) \).

    **Source:** arXiv:2410.23610, equation 3.3; the scheme: Carrillo, Chertock, Huang (2015), section 2; the free
    energy: S. Mei, A. Montanari, P.-M. Nguyen, *A mean field view of the landscape of two-layer neural networks*,
    PNAS 115 (2018).
    """

    temperature: Float[Array, ""]

    def parameters(self, model: AbstractModel) -> Float[Array, "*saves depth width"]:
        """The weights."""
        return model.measure.weights

    def place(self, model: AbstractModel, parameters: Float[Array, "*saves depth width"]) -> AbstractModel:
        """Put the weights; negative ones, due to rounding, become zero."""
        return eqx.tree_at(lambda m: m.measure.weights, model, jnp.maximum(parameters, 0))

    def pack(self, parameters: Float[Array, "depth width"]) -> list[Array]:
        """The weights."""
        return [parameters]

    def unpack(self, packed: list[Array], like: Float[Array, "depth width"]) -> Float[Array, "depth width"]:
        """The weights."""
        return packed[0]

    def evaluate(self, objective: Callable[[Any], Float[Array, ""]], model: AbstractModel) -> Evaluation:
        """Differentiate Q by the weights, and move mass down the slope of the potential."""
        measure = model.measure
        assert isinstance(measure, Eulerian)

        def value(weights):
            moved = eqx.tree_at(lambda m: m.measure.weights, model, weights)
            return value_and_outputs(objective, moved)

        (q, outputs), gradient = jax.value_and_grad(value, has_aux=True)(measure.weights)
        # A positive floor keeps the logarithm finite: empty cells are filled at a large finite speed.
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
            # Near rest the velocity vanishes, and diffusion bounds a stable step: Δθ²/(2σ) in one dimension.
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


class Rate(NamedTuple):
    r"""How the masses of cells change.

    - `masses`: \( \dot a_j \), of the shape of the cells; they add up to 0.
    - `dissipation`: \( \sum_{faces} u^2 \hat a = -\sum_j \xi_j \dot a_j \ge 0 \), the rate at which the energy falls.
    - `courant`: ν, the Courant number per unit of time. An explicit Euler step of at most 1/ν keeps masses ≥ 0.
    """

    masses: Float[Array, "*cells"]
    dissipation: Float[Array, ""]
    courant: Float[Array, ""]


def finite_volume_rate(
    masses: Float[Array, "*cells"], potential: Float[Array, "*cells"], spacing: Float[Array, " dim"]
) -> Rate:
    r"""The semi-discrete continuity equation \( \partial_\tau \rho = \nabla\cdot(\rho \nabla \xi) \) on a grid.

    Along each coordinate, with the velocity \( u_{j+1/2} = -(\xi_{j+1} - \xi_j)/\Delta\theta \) at faces, none at the
    grid's boundary, and masses \( a^E_j, a^W_j = a_j \pm \tfrac12 s_j \) at the east and west faces of a cell by
    limited slopes s_j,

    \[ \dot a_j = -\frac{F_{j+1/2} - F_{j-1/2}}{\Delta\theta}, \qquad
       F_{j+1/2} = u^+_{j+1/2}\, a^E_j + u^-_{j+1/2}\, a^W_{j+1}. \]

    Second order where ξ is smooth and a has no extremum. Mass is conserved; if ξ is the derivative of an energy in the
    masses, the energy falls at exactly the rate of the dissipation; positivity holds under the Courant condition.

    **Arguments:** masses and potential at the cells, `[n_1, ..., n_P]` with P = `dim`, and the cells' lengths.

    **Source:** J. A. Carrillo, A. Chertock, Y. Huang, *A finite-volume method for nonlinear nonlocal equations with a
    gradient flow structure*, Commun. Comput. Phys. 17 (2015), section 2.
    """
    rate, dissipation = jnp.zeros_like(masses), jnp.zeros((), masses.dtype)
    crossings = jnp.zeros_like(masses)
    for axis in range(masses.ndim):
        a, xi = jnp.moveaxis(masses, axis, -1), jnp.moveaxis(potential, axis, -1)
        half = _limited_slopes(a) / 2
        u = -jnp.diff(xi, axis=-1) / spacing[axis]
        east, west = jnp.maximum(u, 0), jnp.maximum(-u, 0)
        flux = east * (a + half)[..., :-1] - west * (a - half)[..., 1:]
        dissipation = dissipation + jnp.sum(u * flux)
        rate = rate - jnp.moveaxis(jnp.diff(_walled(flux), axis=-1), -1, axis) / spacing[axis]
        # The two face values of a cell sum to 2a, so at most that leaves, at the larger outward speed.
        outward = 2 * jnp.maximum(_walled(east)[..., 1:], _walled(west)[..., :-1])
        crossings = crossings + jnp.moveaxis(outward, -1, axis) / spacing[axis]
    return Rate(rate, dissipation, jnp.max(crossings))


def _walled(faces: Array) -> Array:
    """Values at inner faces with those at the boundary, where nothing moves, along the last axis."""
    return jnp.pad(faces, [(0, 0)] * (faces.ndim - 1) + [(1, 1)])


def _limited_slopes(a: Array) -> Array:
    """Slopes per cell by the generalised minmod limiter (parameter 1.5) along the last axis; 0 at the boundary.

    Both face values of a cell then lie between the values of its neighbours, and are at least a quarter of its own.
    With the largest parameter, 2, the face toward an empty cell could be zero, and diffusion would never cross it.
    """
    step = jnp.diff(a, axis=-1)
    left, right = step[..., :-1], step[..., 1:]
    size = jnp.minimum(jnp.abs(left + right) / 2, 1.5 * jnp.minimum(jnp.abs(left), jnp.abs(right)))
    return _walled((jnp.sign(left) + jnp.sign(right)) / 2 * size)
