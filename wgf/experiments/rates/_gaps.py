"""The gaps of `wgf rates` between finite models and the limit, corrected for the limit's own sampling error."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...measures import coordinates
from ...objective import Objective
from ...transport import conditional_divergence, epsilon_from_scale
from .._grouping import Size
from ._limit import LimitFlow, Reference
from ._training import FinalValues


class SeedGaps(NamedTuple):
    """The gaps of one size to the limit, `[seeds]` each.

    - `output`, `coupling`: root mean squares over prompts, over particles.
    - `risk`, `objective`: absolute differences.
    - `excess`: the Sinkhorn divergence of the particles minus that of the tracers, a square of either sign.
    """

    output: np.ndarray
    risk: np.ndarray
    objective: np.ndarray
    coupling: np.ndarray
    excess: np.ndarray


class ReferenceNoise(NamedTuple):
    """The RMS contribution of the reference's own error to each gap; NaN if it is not known."""

    output: float
    risk: float
    objective: float
    coupling: float


def noise_of(objective: Objective, reference: Reference, transport: float = float("nan")) -> ReferenceNoise:
    """The noise of a reference. `transport` is the root mean square error of its tracers."""
    output = jnp.sqrt(objective.prompts.expect(reference.outputs.error**2))
    return ReferenceNoise(float(output), float(reference.risk.error), float(reference.objective.error), transport)


def gaps_of(objective: Objective, ends: FinalValues, reference: Reference, noise: ReferenceNoise) -> SeedGaps:
    """The gaps in outputs, risk and Q. The gaps of particles are NaN."""
    off = np.asarray(ends.outputs, np.float64) - np.asarray(reference.outputs.value, np.float64)
    unknown = np.full(len(off), np.nan)
    return SeedGaps(
        output=subtract_noise(np.sqrt(off**2 @ np.asarray(objective.prompts.weights, np.float64)), noise.output),
        risk=subtract_noise(np.asarray(ends.risk) - float(reference.risk.value), noise.risk),
        objective=subtract_noise(np.asarray(ends.objective) - float(reference.objective.value), noise.objective),
        coupling=unknown,
        excess=unknown,
    )


def coupling_gap(own: PyTree[np.ndarray], tracers: PyTree[np.ndarray], noise: float) -> np.ndarray:
    """The distance of particles from the tracers with the same start, `[seeds]`."""
    squares = np.mean(np.sum((_vectors(own) - _vectors(tracers)) ** 2, axis=-1), axis=(1, 2))
    return subtract_noise(np.sqrt(squares), noise)


def subtract_noise(gap: np.ndarray, noise: float) -> np.ndarray:
    """Subtract the square of the noise from the square of a gap; a gap below the noise becomes a tenth of the noise.

    The reference's error is independent of the finite model, so its variance adds to the square of the measured gap.
    """
    return np.sqrt(np.maximum(np.asarray(gap, np.float64) ** 2 - noise**2, (0.1 * noise) ** 2))


def _vectors(particles: PyTree[np.ndarray]) -> np.ndarray:
    """The particles as vectors, `[seeds, L, M, P]`, in float64."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(particles)]
    return np.concatenate([leaf.reshape(*leaf.shape[:3], -1) for leaf in leaves], axis=-1)


class SinkhornExcess:
    """The Sinkhorn divergence of particles from the limit's law minus that of the tracers; one program for all sizes.

    **Arguments:** the limit; `width`, the largest number of particles of a layer; `cloud`, the number of the limit's
    particles that are used; `seed`, the seed of their choice.
    """

    def __init__(self, limit: LimitFlow, width: int, cloud: int, seed: int):
        measure = limit.pooled.model_at(-1).measure
        count = measure.width
        chosen = np.random.default_rng(seed).choice(count, min(cloud, count), replace=False)
        self._nodes = np.asarray(measure.depths)
        self._law = np.asarray(coordinates(measure.particles))[:, chosen]
        self._width = width
        self._epsilon = epsilon_from_scale(coordinates(limit.pooled.model_at(0).measure.particles)[0])

    def __call__(self, size: Size, own: PyTree[np.ndarray], tracers: PyTree[np.ndarray]) -> np.ndarray:
        """The mean excess over the layers at one and three quarters of the depth, `[seeds]`."""
        depth, width = size
        layers = np.array([depth // 4, 3 * depth // 4])
        nodes = np.abs(self._nodes - (layers[:, None] + 0.5) / depth).argmin(axis=1)
        padding = ((0, 0), (0, 0), (0, self._width - width), (0, 0))
        pair = (np.pad(_vectors(p)[:, layers], padding).astype(self._law.dtype) for p in (own, tracers))
        weights = np.where(np.arange(self._width) < width, 1 / width, 0).astype(self._law.dtype)
        found = _excess(jnp.concatenate(list(pair)), weights, jnp.asarray(self._law[nodes]), self._epsilon)
        return np.asarray(found, np.float64)


@eqx.filter_jit
def _excess(
    clouds: Float[Array, "pairs layers width dim"],
    weights: Float[ArrayLike, " width"],
    law: Float[Array, "layers count dim"],
    epsilon: Float[Array, ""],
) -> Float[Array, " seeds"]:
    """Divergences from the law: those of the first half of the clouds minus those of the second half."""
    layers = clouds.shape[1]
    depth_weights, masses = jnp.full(layers, 1 / layers, clouds.dtype), jnp.tile(weights, (layers, 1))

    def divergence(cloud):
        return conditional_divergence(cloud, law, depth_weights, epsilon=epsilon, x_weights=masses).value

    own, tracers = jnp.split(jax.lax.map(divergence, clouds), 2)
    return own - tracers
