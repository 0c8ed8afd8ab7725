"""The finite-volume rate: mass moved across the faces of a grid's cells by the slope of a potential."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Rate(NamedTuple):
    r"""How the masses of cells change.

    - `masses`: \( \dot a_j \), of the shape of the cells; they add up to 0.
    - `dissipation`: \( \sum_{faces} u^2 \hat a = -\sum_j \xi_j \dot a_j \ge 0 \), the rate at which the energy falls.
    - `courant`: ν, the Courant numbers a unit of time: an explicit Euler step of length at most 1/ν keeps masses ≥ 0.
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
        # A cell's two face values add up to 2a, so no more than that can leave at the greater of its outward speeds.
        outward = 2 * jnp.maximum(_walled(east)[..., 1:], _walled(west)[..., :-1])
        crossings = crossings + jnp.moveaxis(outward, -1, axis) / spacing[axis]
    return Rate(rate, dissipation, jnp.max(crossings))


def _walled(faces: Array) -> Array:
    """Values at inner faces with those at the boundary, where nothing moves, along the last axis."""
    return jnp.pad(faces, [(0, 0)] * (faces.ndim - 1) + [(1, 1)])


def _limited_slopes(a: Array) -> Array:
    """Slopes a cell by the generalised minmod limiter (of parameter 1.5) along the last axis; 0 at the boundary.

    Values at both faces of a cell then lie between those of its neighbours and are at least a quarter of its own. At
    the limiter's greatest parameter, 2, a face toward an empty cell could be empty too: diffusion would never cross it.
    """
    step = jnp.diff(a, axis=-1)
    left, right = step[..., :-1], step[..., 1:]
    size = jnp.minimum(jnp.abs(left + right) / 2, 1.5 * jnp.minimum(jnp.abs(left), jnp.abs(right)))
    return _walled((jnp.sign(left) + jnp.sign(right)) / 2 * size)
