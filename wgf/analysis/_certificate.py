"""The optimality certificate: a search for a particle whose insertion lowers Q."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, PyTree

from .._backend.precision import Module
from .._checks import at_least, check_memory, instance, positive, random_key
from .._depth import check_depth
from .._random import purpose
from ..measures import coordinates
from ..models import AbstractModel
from ..objective import FirstVariation, Objective


class Certificate(Module):
    r"""The least value of δQ/δρ against its mean, at each depth.

    - `depths`: `[depths]`.
    - `mean`: \( E_{\rho(\cdot, t)}\,\delta Q/\delta\rho \), `[depths]`.
    - `least`: \( \min_\theta \delta Q/\delta\rho(\theta, t) \) over the ball of the search, `[depths]`.
    - `particles`: the particles of the least values, leading axis `[depths]`.
    - `radius`: the radius of the ball.
    - `at_boundary`: whether the least value lies at the ball's boundary (beyond 0.95 of the radius), `[depths]`. Lower
      values may then exist outside. For example, a 2-homogeneous neuron with a small λ has no least value.
    """

    depths: Float[Array, " depths"]
    mean: Float[Array, " depths"]
    least: Float[Array, " depths"]
    particles: PyTree[Array]
    radius: Float[Array, ""]
    at_boundary: Bool[Array, " depths"]

    @property
    def gap(self) -> Float[Array, " depths"]:
        """Least minus mean, in units of Q, ≤ 0 up to rounding. If strictly negative, ρ is not optimal."""
        return self.least - self.mean

    @property
    def value(self) -> Float[Array, ""]:
        """The worst gap over depths."""
        return jnp.min(self.gap)


def certificate(
    objective: Objective,
    model: AbstractModel,
    *,
    key: PRNGKeyArray,
    depths: ArrayLike | Sequence[float] | None = None,
    starts: int = 16,
    radius: ArrayLike | None = None,
    max_steps: int = 200,
) -> Certificate:
    r"""Search for a particle whose insertion lowers Q: \( \min_\theta \delta Q/\delta\rho(\theta, t) - E_\rho\,\delta
    Q/\delta\rho \) at each depth.

    If ρ minimises Q over measures, then at almost every t the first variation attains its minimum over all θ on the
    support of ρ(·, t), and the gap is 0. A gap below 0 proves that ρ is not optimal, even if its particles are
    stationary. A gap of 0 is necessary for optimality. It is sufficient only where Q is convex in ρ (one layer).

    **Arguments:**

    - `objective`, `model`: Q, and the model to test.
    - `key`: a random key for the starts.
    - `depths`: depths in [0, 1]. Default: at most eight of the measure's depths, evenly spread.
    - `starts`: the number of local searches per depth. Half start from the particles of least δQ/δρ, and half from new
      draws of the encoder at the particles' scale. The value found is an upper bound on the true minimum.
    - `radius`: the search stays in ‖θ‖ < radius. Default: four times the largest particle's norm, at least 4.
    - `max_steps`: the most BFGS steps per search.

    **Returns:** [`wgf.analysis.Certificate`][].

    **Raises:** `ValueError` if a count is too small, a depth that is not traced lies outside [0, 1] or the radius is
    not positive.

    Cost: one forward and one backward solve, then starts × steps × B encoder evaluations per depth.

    **Source:** arXiv:2410.23610, section 4 and its optimality conditions.
    """
    starts, max_steps = at_least("starts", starts, 2), at_least("max_steps", max_steps, 1)
    instance("objective", objective, Objective, "a wgf.Objective")
    instance("model", model, AbstractModel, "a wgf.Transformer or a wgf.AveragedODE").check()
    key = random_key("key", key)
    parts = jax.tree.leaves(model.measure.particles)
    model.check_finite()
    check_memory(each=sum(math.prod(leaf.shape[2:]) for leaf in parts), starts=starts)
    depths = _depths(model, depths)
    radius = _radius(model, radius)
    return _certificate(objective, model, key, depths, radius, starts, max_steps)


@eqx.filter_jit
def _certificate(objective, model, key, depths, radius, starts: int, max_steps: int) -> Certificate:
    first_variation = objective.first_variation(model)

    def at_depth(inputs):
        depth, key = inputs
        particles, weights = model.measure.at(depth)
        values = jax.lax.map(lambda particle: first_variation(particle, depth), particles)
        begin = _starts(model, particles, values, key, starts)
        least, particle, norm = _search(first_variation, depth, begin, radius, max_steps)
        return jnp.sum(weights * values), least, particle, norm > 0.95 * radius

    keys = jax.random.split(purpose(key, "analysis.certificate"), depths.shape[0])
    mean, least, particles, at_boundary = jax.lax.map(at_depth, (depths, keys))
    return Certificate(depths, mean, least, particles, radius, at_boundary)


def _starts(model: AbstractModel, particles: PyTree[Array], values: Array, key, starts: int) -> PyTree[Array]:
    """The starts: half are the particles of least first variation, half new draws of the same root mean square."""
    kept = min(starts // 2, values.shape[0])
    best = jnp.argsort(values)[:kept]
    fresh = model.encoder.sample(key, (starts - kept,))
    scale = jnp.sqrt(jnp.mean(coordinates(_row(particles)) ** 2) / jnp.mean(coordinates(_row(fresh)) ** 2))
    # If all particles are 0 they have no scale, so the encoder's own scale is used.
    scale = jnp.where(scale > 0, scale, 1)
    return jax.tree.map(
        lambda a, b: jnp.concatenate([a[best], (scale * b).astype(a.dtype)]),
        particles,
        fresh,
    )


def _search(first_variation: FirstVariation, depth: Array, begin: PyTree[Array], radius: Array, max_steps: int):
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


def _depths(model: AbstractModel, depths: ArrayLike | Sequence[float] | None) -> Float[Array, " depths"]:
    if depths is None:
        own = model.measure.depths
        chosen = np.unique(np.linspace(0, own.shape[0] - 1, min(8, own.shape[0])).round().astype(int))
        return own[chosen]
    depths = jnp.atleast_1d(check_depth("depths", depths))
    if depths.ndim != 1 or depths.size == 0:
        raise ValueError(f"`depths` must be a vector of depths in [0, 1]; got shape {depths.shape}.")
    return depths


def _radius(model: AbstractModel, radius: ArrayLike | None) -> Float[Array, ""]:
    if radius is None:
        norms = jnp.linalg.norm(coordinates(model.measure.particles), axis=-1)
        return jnp.maximum(4 * jnp.max(norms), 4)
    return positive("radius", radius)
