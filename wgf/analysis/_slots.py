"""Slots for particles: weightless particles that wait for a mass, and their removal."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..models import AbstractModel


def with_slots(model: AbstractModel, count: int) -> AbstractModel:
    """The model with `count` more particles of weight zero at each depth, copies of the first ones."""
    measure = model.measure
    copied = jnp.arange(count) % measure.width
    particles = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:, copied]], axis=1), measure.particles)
    weights = jnp.concatenate(
        [measure.weights, jnp.zeros_like(measure.weights, shape=(len(measure.weights), count))], 1
    )
    return eqx.tree_at(lambda m: (m.measure.particles, m.measure.weights), model, (particles, weights))


def without_slots(model: AbstractModel) -> AbstractModel:
    """The same law in the least width: particles of weight zero go, unless another depth needs the width."""
    weights = np.asarray(model.measure.weights)
    width = max(int(np.max(np.sum(weights > 0, axis=1))), 1)
    # A stable sort keeps the order of the particles that stay.
    order = jnp.asarray(np.argsort(weights <= 0, axis=1, kind="stable")[:, :width])
    rows = jnp.arange(len(weights))[:, None]
    particles, weights = jax.tree.map(lambda leaf: leaf[rows, order], (model.measure.particles, model.measure.weights))
    return eqx.tree_at(lambda m: (m.measure.particles, m.measure.weights), model, (particles, weights))
