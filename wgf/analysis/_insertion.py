"""The insertion of a little mass at given particles, one at each depth."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..measures import Eulerian, coordinates
from ..models import AbstractModel


def insert(
    model: AbstractModel, depths: Float[Array, " depths"], particles: PyTree[Array], mass: ArrayLike
) -> AbstractModel:
    r"""The model of \( (1 - m)\,\rho(\cdot, t) + m\,\delta_{\theta(t)} \).

    **Arguments:**

    - `model`: the model of ρ. On a grid, the mass goes to the cell nearest to θ.
    - `depths`, `particles`: the particle θ at each of these depths, leading axis `[depths]`. Each node of the measure
      takes the one at the nearest of them.
    - `mass`: m, between 0 and 1.
    """
    measure = model.measure
    nearest = jnp.argmin(jnp.abs(measure.depths[:, None] - depths[None]), axis=1)
    added = jax.tree.map(lambda leaf: leaf[nearest][:, None], particles)
    # The sum of a row is 1; in a model that is padded, more or 0.
    sums = jnp.sum(measure.weights, axis=1, keepdims=True)
    if isinstance(measure, Eulerian):
        squares = jnp.sum((coordinates(measure.particles) - coordinates(added)) ** 2, axis=-1)
        cell = jax.nn.one_hot(jnp.argmin(squares, axis=1), measure.width, dtype=sums.dtype)
        return eqx.tree_at(
            lambda model: model.measure.weights, model, (1 - mass) * measure.weights + mass * sums * cell
        )
    joined = jax.tree.map(lambda own, new: jnp.concatenate([own, new], axis=1), measure.particles, added)
    weights = jnp.concatenate([(1 - mass) * measure.weights, mass * sums], axis=1)
    return eqx.tree_at(lambda model: (model.measure.particles, model.measure.weights), model, (joined, weights))
