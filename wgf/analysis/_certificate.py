"""The optimality certificate: a search for a particle whose insertion lowers Q."""

import math
from collections.abc import Iterator, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, PyTree

from .._checks import at_least, check_memory, instance, positive, random_key
from .._depth import check_depth
from .._display.text import Brief, kind, known, number
from .._random import purpose
from ..measures import coordinates
from ..models import AbstractModel
from ..objective import Objective
from ._insertion import insert
from ._search import search, starts_at

# What is inserted to see whether Q falls: little enough for the first order, and enough for float32.
MASSES = (1e-3, 1e-2)


class Certificate(Brief):
    r"""The least value of δQ/δρ against its mean, at each depth.

    Look first at `relative_gap`: the most that Q falls per unit of mass moved, in units of Q. Near 0, no particle is
    missing. At −1, moving 1 % of the mass lowers Q by about 1 %. Then look at `falls`, which is measured, and at
    `at_boundary`.

    - `depths`: `[depths]`.
    - `mean`: \( E_{\rho(\cdot, t)}\,\delta Q/\delta\rho \), `[depths]`.
    - `least`: \( \min_\theta \delta Q/\delta\rho(\theta, t) \) over the ball of the search, `[depths]`.
    - `particles`: the particles of the least values, leading axis `[depths]`.
    - `radius`: the radius of the ball.
    - `at_boundary`: whether the least value lies at the ball's boundary (beyond 0.95 of the radius), `[depths]`. Lower
      values may then exist outside. For example, a 2-homogeneous neuron with a small λ has no least value.
    - `objective`: Q of the model.
    - `masses`: the masses m that were inserted, `[masses]`.
    - `falls`: \( Q(\rho) - Q((1 - m)\,\rho + m\,\delta_\theta) \), with the particle θ of the least value at each
      depth, `[masses]`. It is positive if the insertion lowers Q. To first order it is −m times the mean of `gap` over
      depth. At a finite mass it may be less, or negative, because Q is not linear.

    Its `repr` is one line, and `summary()` has several. `equinox.tree_pformat` gives its whole structure.
    """

    depths: Float[Array, " depths"]
    mean: Float[Array, " depths"]
    least: Float[Array, " depths"]
    particles: PyTree[Array]
    radius: Float[Array, ""]
    at_boundary: Bool[Array, " depths"]
    objective: Float[Array, ""]
    masses: Float[Array, " masses"]
    falls: Float[Array, " masses"]

    @property
    def gap(self) -> Float[Array, " depths"]:
        r"""Least minus mean, \( \min_\theta \delta Q/\delta\rho - E_\rho\,\delta Q/\delta\rho \), `[depths]`.

        It is in units of Q, and ≤ 0 up to rounding. If it is strictly negative, ρ is not optimal.
        """
        return self.least - self.mean

    @property
    def value(self) -> Float[Array, ""]:
        """The worst gap over depths."""
        return jnp.min(self.gap)

    @property
    def relative_gap(self) -> Float[Array, ""]:
        """The worst gap over depths divided by Q: a number without unit."""
        return self.value / self.objective

    def _facts(self) -> Iterator[str]:
        least, mean, depths = (known(part, 1) for part in (self.least, self.mean, self.depths))
        if least is None or mean is None or depths is None:
            yield f"{kind(self.least)} gaps"
            return
        gap, total = least - mean, known(self.objective, 0)
        worst = int(np.argmin(gap))
        share = "" if total is None else f" ({gap[worst] / total:.2g} Q)"
        yield f"gap {gap[worst]:.3g}{share} at depth {depths[worst]:.3g}"
        for mass, fall in zip(self.masses.tolist(), self.falls.tolist(), strict=True):
            yield f"Q {'falls' if fall > 0 else 'rises'} by {abs(fall):.2g} for mass {mass:g}"
        beyond = known(self.at_boundary, 1)
        if beyond is not None and beyond.any():
            found = f"{int(beyond.sum())} of {len(gap)} depths"
            yield f"at the boundary of the search, radius {number(self.radius)}, at {found}"


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
    - `depths`: depths in [0, 1]. Default: at most eight of the measure's depths, evenly spread. There δQ/δρ of a staged
      measure is that of Q as it is computed (`discrete` of [`wgf.Objective.first_variation`][]).
    - `starts`: the number of local searches per depth. Half start from the particles of least δQ/δρ, and half from new
      draws of the encoder at several scales, from 0.3 to 4 times that of the particles and of the encoder. The value
      found is an upper bound on the true minimum.
    - `radius`: the search stays in ‖θ‖ < radius. Default: four times the largest particle's norm, at least 4.
    - `max_steps`: the most BFGS steps per search.

    **Returns:** [`wgf.analysis.Certificate`][].

    **Raises:** `ValueError` if a count is too small, a depth that is not traced lies outside [0, 1] or the radius is
    not positive.

    Cost: one forward and one backward solve, then starts × steps × B encoder evaluations per depth, and three more
    forward solves to insert a mass of 1e-3 and of 1e-2.

    **Source:** arXiv:2410.23610, section 4 and its optimality conditions.
    """
    found, _ = certificate_and_values(objective, model, key, depths, starts, radius, max_steps, depths is None)
    return found


def certificate_and_values(
    objective: Objective,
    model: AbstractModel,
    key: PRNGKeyArray,
    depths: ArrayLike | Sequence[float] | None,
    starts: int,
    radius: ArrayLike | None,
    max_steps: int,
    discrete: bool,
) -> tuple[Certificate, Float[Array, "depths width"]]:
    """The certificate, and δQ/δρ at the particles of each of its depths; `discrete` as for a first variation."""
    starts, max_steps = at_least("starts", starts, 2), at_least("max_steps", max_steps, 1)
    instance("objective", objective, Objective, "a wgf.Objective")
    instance("model", model, AbstractModel, "a wgf.Transformer or a wgf.AveragedODE").check()
    key = random_key("key", key)
    parts = jax.tree.leaves(model.measure.particles)
    model.check_finite()
    check_memory(each=sum(math.prod(leaf.shape[2:]) for leaf in parts), starts=starts)
    depths = _some_depths(model) if depths is None else _check_depths(depths)
    radius = _radius(model, radius)
    return _certificate(objective, model, key, depths, radius, starts, max_steps, discrete)


@eqx.filter_jit
def _certificate(
    objective, model, key, depths, radius, starts: int, max_steps: int, discrete: bool
) -> tuple[Certificate, Float[Array, "depths width"]]:
    first_variation = objective.first_variation(model, discrete=discrete)

    def at_depth(inputs):
        depth, key = inputs
        particles, weights = model.measure.at(depth)
        values = jax.lax.map(lambda particle: first_variation(particle, depth), particles)
        begin = starts_at(model, particles, values, key, starts)
        least, particle, norm = search(first_variation, depth, begin, radius, max_steps)
        return values, jnp.sum(weights * values), least, particle, norm > 0.95 * radius

    keys = jax.random.split(purpose(key, "analysis.certificate"), depths.shape[0])
    values, mean, least, particles, at_boundary = jax.lax.map(at_depth, (depths, keys))
    masses = jnp.asarray(MASSES, least.dtype)
    value = objective(model)
    falls = jax.lax.map(lambda mass: value - objective(insert(model, depths, particles, mass)), masses)
    return Certificate(depths, mean, least, particles, radius, at_boundary, value, masses, falls), values


def _some_depths(model: AbstractModel) -> Float[Array, " depths"]:
    """At most eight of the measure's own depths, evenly spread."""
    own = model.measure.depths
    chosen = np.unique(np.linspace(0, own.shape[0] - 1, min(8, own.shape[0])).round().astype(int))
    return own[chosen]


def _check_depths(depths: ArrayLike | Sequence[float]) -> Float[Array, " depths"]:
    depths = jnp.atleast_1d(check_depth("depths", depths))
    if depths.ndim != 1 or depths.size == 0:
        raise ValueError(f"`depths` must be a vector of depths in [0, 1]; got shape {depths.shape}.")
    return depths


def _radius(model: AbstractModel, radius: ArrayLike | None) -> Float[Array, ""]:
    if radius is None:
        norms = jnp.linalg.norm(coordinates(model.measure.particles), axis=-1)
        return jnp.maximum(4 * jnp.max(norms), 4)
    return positive("radius", radius)
