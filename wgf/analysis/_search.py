"""The search for the particle of least first variation: many local searches within a ball."""

import jax
import jax.numpy as jnp
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..measures import coordinates
from ..models import AbstractModel
from ..objective import FirstVariation

# The scales of new starts, in units of the particles' root mean square and of the encoder's own. One scale alone can
# miss the deepest valley.
LEAST_SCALE, GREATEST_SCALE = 0.3, 4.0


def starts_at(
    model: AbstractModel, particles: PyTree[Array], values: Float[Array, " width"], key: PRNGKeyArray, starts: int
) -> PyTree[Array]:
    """The starts: half are the particles of least first variation, half new draws of the encoder at several scales."""
    kept = min(starts // 2, values.shape[0])
    best = jnp.argsort(values)[:kept]
    fresh = model.encoder.sample(key, (starts - kept,))
    scales = _scales(particles, fresh, starts - kept)

    def join(own: Array, new: Array) -> Array:
        return jnp.concatenate([own[best], (scales.reshape(-1, *(1,) * (new.ndim - 1)) * new).astype(own.dtype)])

    return jax.tree.map(join, particles, fresh)


def _scales(particles: PyTree[Array], fresh: PyTree[Array], count: int) -> Float[Array, " count"]:
    """Factors of new draws, from 0.3 times the smaller to 4 times the greater of the particles' scale and 1."""
    scale = jnp.sqrt(jnp.mean(coordinates(_row(particles)) ** 2) / jnp.mean(coordinates(_row(fresh)) ** 2))
    # Particles that are all 0 have no scale.
    scale = jnp.where(scale > 0, scale, 1)
    low, high = LEAST_SCALE * jnp.minimum(scale, 1), GREATEST_SCALE * jnp.maximum(scale, 1)
    shares = jnp.linspace(0, 1, count, dtype=scale.dtype) if count > 1 else jnp.full(1, 0.5, scale.dtype)
    return jnp.exp((1 - shares) * jnp.log(low) + shares * jnp.log(high))


def search(
    first_variation: FirstVariation, depth: Array, begin: PyTree[Array], radius: Array, max_steps: int
) -> tuple[Array, PyTree[Array], Array]:
    """The least result of all searches: its value, its particle and the particle's norm."""
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], begin))[1]
    flat = jax.vmap(lambda particle: ravel_pytree(particle)[0])(begin)
    eps = float(jnp.finfo(flat.dtype).eps)
    solver = optx.BFGS(rtol=eps**0.5, atol=eps**0.75)

    def value(z, _):
        return first_variation(unravel(_into_ball(z, radius)), depth)

    def one(z):
        return optx.minimise(value, solver, z, max_steps=max_steps, throw=False).value

    found = jax.vmap(one)(_out_of_ball(flat, radius))
    # A search that is not finite is replaced by its start.
    found = jnp.where(jnp.isfinite(found).all(axis=1, keepdims=True), found, _out_of_ball(flat, radius))
    values = jax.lax.map(lambda z: value(z, None), found)
    best = jnp.argmin(jnp.where(jnp.isnan(values), jnp.inf, values))
    theta = _into_ball(found[best], radius)
    return values[best], unravel(theta), jnp.linalg.norm(theta)


def _into_ball(z: Array, radius: Array) -> Array:
    """The smooth map of all vectors onto the open ball, z / √(1 + |z|²/R²)."""
    return z / jnp.sqrt(1 + jnp.sum(z**2, axis=-1, keepdims=True) / radius**2)


def _out_of_ball(theta: Array, radius: Array) -> Array:
    """The inverse of `_into_ball`. Points beyond nine tenths of the radius are first moved to there."""
    norm = jnp.linalg.norm(theta, axis=-1, keepdims=True)
    theta = theta * jnp.minimum(1, 0.9 * radius / jnp.where(norm > 0, norm, 1))
    return theta / jnp.sqrt(1 - jnp.sum(theta**2, axis=-1, keepdims=True) / radius**2)


def _row(particles: PyTree[Array]) -> PyTree[Array]:
    return jax.tree.map(lambda leaf: leaf[None], particles)
