"""The optimality certificate: is there a particle that Q would rather have?"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, PyTree

from .._backend.precision import Module
from .._checks import at_least, instance, positive, random_key
from .._depth import check_depth
from .._random import purpose
from ..measures import coordinates
from ..models import AbstractModel
from ..objective import FirstVariation, Objective


class Certificate(Module):
    r"""How far δQ/δρ falls below its own mean, at each depth.

    - `depths`: `[depths]`.
    - `mean`: \( E_{\rho(\cdot, t)}\,\delta Q/\delta\rho \), `[depths]`.
    - `least`: \( \min_\theta \delta Q/\delta\rho(\theta, t) \) over the ball of the search, `[depths]`.
    - `particles`: where the least was found, leading axis `[depths]`.
    - `radius`: that of the ball.
    - `at_boundary`: whether the least lies at the ball's boundary (beyond 0.95 of the radius), where more may be gained
      outside: a neuron that is 2-homogeneous against a small λ has no least value at all. `[depths]`.
    """

    depths: Float[Array, " depths"]
    mean: Float[Array, " depths"]
    least: Float[Array, " depths"]
    particles: PyTree[Array]
    radius: Float[Array, ""]
    at_boundary: Bool[Array, " depths"]

    @property
    def gap(self) -> Float[Array, " depths"]:
        """Least minus mean, ≤ 0 but for rounding, in units of Q; strictly negative proves that ρ is not optimal."""
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
    r"""Search for a particle that Q would rather have: \( \min_\theta \delta Q/\delta\rho(\theta, t) - E_\rho\,\delta
    Q/\delta\rho \) at each depth.

    If ρ minimises Q over measures then at almost every t the first variation attains its minimum over all θ on the
    support of ρ(·, t), and the gap is 0. A gap below 0 proves that ρ is not optimal, however stationary its particles
    are; a gap of 0 is necessary, and sufficient only where Q is convex in ρ (one layer).

    **Arguments:**

    - `objective`, `model`: Q, and where to ask.
    - `key`: of the random starts.
    - `depths`: where in [0, 1]; default at most eight of the measure's own depths, evenly spread.
    - `starts`: local searches a depth: half from the particles of least δQ/δρ, half from fresh draws of the encoder at
      the particles' scale. The least found is an upper bound of the least there is.
    - `radius`: the search stays in ‖θ‖ < radius; default four times the largest particle's norm, at least 4.
    - `max_steps`: the most BFGS steps of a search.

    **Returns:** [`wgf.analysis.Certificate`][].

    **Raises:** `ValueError` if a count is below 1, a depth that is known leaves [0, 1] or the radius is not positive.

    Cost: one forward and one backward solve, then starts × steps × B encoder evaluations a depth.

    **Source:** arXiv:2410.23610, section 4 and its optimality conditions.
    """
    starts, max_steps = at_least("starts", starts, 2), at_least("max_steps", max_steps, 1)
    instance("objective", objective, Objective, "a wgf.Objective")
    instance("model", model, AbstractModel, "a wgf.Transformer or a wgf.AveragedODE").check()
    key = random_key("key", key)
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
    """Half the particles where the first variation is least, half fresh draws of the same root mean square."""
    kept = min(starts // 2, values.shape[0])
    best = jnp.argsort(values)[:kept]
    fresh = model.encoder.sample(key, (starts - kept,))
    scale = jnp.sqrt(jnp.mean(coordinates(_row(particles)) ** 2) / jnp.mean(coordinates(_row(fresh)) ** 2))
    # Particles that have all collapsed to 0 leave no scale: search at the encoder's own.
    scale = jnp.where(scale > 0, scale, 1)
    return jax.tree.map(
        lambda a, b: jnp.concatenate([a[best], (scale * b).astype(a.dtype)]),
        particles,
        fresh,
    )


def _search(first_variation: FirstVariation, depth: Array, begin: PyTree[Array], radius: Array, max_steps: int):
    """The least of all searches: its value, its particle, its norm."""
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], begin))[1]
    flat = jax.vmap(lambda particle: ravel_pytree(particle)[0])(begin)
    eps = float(jnp.finfo(flat.dtype).eps)
    solver = optx.BFGS(rtol=eps**0.5, atol=eps**0.75)

    def value(z, _):
        return first_variation(unravel(_into_ball(z, radius)), depth)

    def one(z):
        return optx.minimise(value, solver, z, max_steps=max_steps, throw=False).value

    found = jax.vmap(one)(_out_of_ball(flat, radius))
    # A search that broke down must neither win nor poison: its start stands instead.
    found = jnp.where(jnp.isfinite(found).all(axis=1, keepdims=True), found, _out_of_ball(flat, radius))
    values = jax.lax.map(lambda z: value(z, None), found)
    best = jnp.argmin(jnp.where(jnp.isnan(values), jnp.inf, values))
    theta = _into_ball(found[best], radius)
    return values[best], unravel(theta), jnp.linalg.norm(theta)


def _into_ball(z: Array, radius: Array) -> Array:
    """The smooth map of all vectors onto the open ball, z / √(1 + |z|²/R²)."""
    return z / jnp.sqrt(1 + jnp.sum(z**2, axis=-1, keepdims=True) / radius**2)


def _out_of_ball(theta: Array, radius: Array) -> Array:
    """The inverse of `_into_ball`; what lies outside nine tenths of the radius is first drawn back there."""
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
    if depths.ndim != 1:
        raise ValueError(f"`depths` must be a vector of depths in [0, 1]; got shape {depths.shape}.")
    return depths


def _radius(model: AbstractModel, radius: ArrayLike | None) -> Float[Array, ""]:
    if radius is None:
        norms = jnp.linalg.norm(coordinates(model.measure.particles), axis=-1)
        return jnp.maximum(4 * jnp.max(norms), 4)
    return positive("radius", radius)
