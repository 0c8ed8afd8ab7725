"""A step of the conditional gradient: mass moves from particles of high first variation to the minimiser."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..models import AbstractModel
from ._certificate import Certificate

# A new particle is inserted if the particles that there are lack more than this share of the gap.
SUPPORT_SHARE = 0.1


def least_of_support(model: AbstractModel, values: Float[Array, "depths width"]) -> Float[Array, " depths"]:
    """The least of the values over particles of positive weight, at each depth."""
    return jnp.min(jnp.where(model.measure.weights > 0, values, jnp.inf), axis=1)


@eqx.filter_jit
def transfer(
    model: AbstractModel,
    found: Certificate,
    values: Float[Array, "depths width"],
    masses: Float[Array, " depths"],
) -> tuple[AbstractModel, Bool[Array, " depths"]]:
    r"""Move mass to the minimiser of δQ/δρ, at each depth from the particles of the greatest δQ/δρ.

    It is taken from the greatest value down, at most from all particles above half of the gap. The minimiser takes the
    slot of the particle of least weight. If the best particle is nearly as low as it, that one receives the mass.

    **Arguments:**

    - `model`: the model of ρ.
    - `found`: the certificate, at all depths of the measure.
    - `values`: δQ/δρ at the particles.
    - `masses`: the mass to move at each depth. At a depth of mass 0 nothing changes.

    **Returns:** the new model, and whether a particle was inserted at each depth.
    """
    measure = model.measure
    lowest = least_of_support(model, values)
    born = (masses > 0) & (lowest - found.least > SUPPORT_SHARE * (found.mean - found.least))
    slot = jax.vmap(_free_slot)(measure.weights, values)
    best = jnp.argmin(jnp.where(measure.weights > 0, values, jnp.inf), axis=1)
    half = (found.mean + found.least) / 2
    weights = jax.vmap(_moved)(measure.weights, values, half, jnp.where(born, slot, best), masses)
    particles = jax.tree.map(lambda own, new: _put(own, new, born, slot), measure.particles, found.particles)
    moved = eqx.tree_at(lambda m: (m.measure.particles, m.measure.weights), model, (particles, weights))
    return moved, born


def _free_slot(weights: Float[Array, " width"], values: Float[Array, " width"]) -> Array:
    """The particle of least weight; of several, the one of the greatest value."""
    return jnp.lexsort((-values, weights))[0]


def _moved(weights, values, half, receiver, mass) -> Float[Array, " width"]:
    """The weights after `mass` has moved to the receiver from values above `half`. The sum stays."""
    gives = (values > half) & (jnp.arange(len(weights)) != receiver)
    order = jnp.argsort(jnp.where(gives, -values, jnp.inf))
    stock = jnp.where(gives, weights, 0)[order]
    taken = jnp.clip(mass - (jnp.cumsum(stock) - stock), 0, stock)
    return weights.at[order].add(-taken).at[receiver].add(jnp.sum(taken))


def _put(own: Array, new: PyTree[Array], born: Bool[Array, " depths"], slot: Array) -> Array:
    """Particles `[depths, width, ...]` with the new one in its slot, at the depths where one is born."""
    rows = jnp.arange(len(slot))
    kept = own[rows, slot]
    return own.at[rows, slot].set(jnp.where(born.reshape(-1, *(1,) * (kept.ndim - 1)), new, kept))
