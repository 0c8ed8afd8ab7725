"""Gaps of the experiment of rates: what parts finite models from the limit, the reference's own noise taken off."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..measures import coordinates
from ..objective import Objective
from ..transport import conditional_divergence, epsilon_from_scale
from ._rates_runs import Ends, Limit, Reference
from ._sizes import Size


class Gaps(NamedTuple):
    """Gaps of one size to the limit, `[seeds]` each.

    Root mean squares over prompts (`output`) or particles (`coupling`), absolute differences (`risk`, `objective`), and
    the excess of the Sinkhorn divergence over the tracers' own (a square, of either sign).
    """

    output: np.ndarray
    risk: np.ndarray
    objective: np.ndarray
    coupling: np.ndarray
    excess: np.ndarray


class Noise(NamedTuple):
    """What the reference's own error puts into gaps, one root mean square each; NaN where it is not known."""

    output: float
    risk: float
    objective: float
    coupling: float


def noise_of(objective: Objective, reference: Reference, transport: float = float("nan")) -> Noise:
    """The noise of a reference, and of its tracers, whose mean squared error is `transport`."""
    output = jnp.sqrt(objective.prompts.expect(reference.outputs.error**2))
    return Noise(float(output), float(reference.risk.error), float(reference.objective.error), float(transport**0.5))


def gaps_of(objective: Objective, ends: Ends, reference: Reference, noise: Noise) -> Gaps:
    """Gaps in outputs, risk and Q; those of particles are NaN."""
    off = np.asarray(ends.outputs, np.float64) - np.asarray(reference.outputs.value, np.float64)
    unknown = np.full(len(off), np.nan)
    return Gaps(
        output=_less(np.sqrt(off**2 @ np.asarray(objective.prompts.weights, np.float64)), noise.output),
        risk=_less(np.asarray(ends.risk) - float(reference.risk.value), noise.risk),
        objective=_less(np.asarray(ends.objective) - float(reference.objective.value), noise.objective),
        coupling=unknown,
        excess=unknown,
    )


def coupling_gap(own: PyTree[np.ndarray], twins: PyTree[np.ndarray], noise: float) -> np.ndarray:
    """The distance of particles from the tracers that began where they did, `[seeds]`."""
    squares = np.mean(np.sum((_vectors(own) - _vectors(twins)) ** 2, axis=-1), axis=(1, 2))
    return _less(np.sqrt(squares), noise)


def _less(gap: np.ndarray, noise: float) -> np.ndarray:
    """Squares of measured gaps are too large by the reference's variance, which is independent: take it off.

    A gap below the noise counts as a tenth of it.
    """
    return np.sqrt(np.maximum(np.asarray(gap, np.float64) ** 2 - noise**2, (0.1 * noise) ** 2))


def _vectors(particles: PyTree[np.ndarray]) -> np.ndarray:
    """`[seeds, L, M, P]`, in float64."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(particles)]
    return np.concatenate([leaf.reshape(*leaf.shape[:3], -1) for leaf in leaves], axis=-1)


class Excess:
    """Sinkhorn divergences from the limit's law minus those of the tracers, in one program for all sizes.

    **Arguments:** the limit; `width`, the most particles of a layer; `cloud`, how many of the limit's particles are
    looked at; `seed` of their choice.
    """

    def __init__(self, limit: Limit, width: int, cloud: int, seed: int):
        measure = limit.pooled.model_at(-1).measure
        count = measure.width
        chosen = np.random.default_rng(seed).choice(count, min(cloud, count), replace=False)
        self._nodes = np.asarray(measure.depths)
        self._law = np.asarray(coordinates(measure.particles))[:, chosen]
        self._width = width
        self._epsilon = epsilon_from_scale(coordinates(limit.pooled.model_at(0).measure.particles)[0])

    def __call__(self, size: Size, own: PyTree[np.ndarray], twins: PyTree[np.ndarray]) -> np.ndarray:
        """The mean excess, over the layers at a quarter and three quarters of the way, `[seeds]`."""
        depth, width = size
        layers = np.array([depth // 4, 3 * depth // 4])
        nodes = np.abs(self._nodes - (layers[:, None] + 0.5) / depth).argmin(axis=1)
        padding = ((0, 0), (0, 0), (0, self._width - width), (0, 0))
        pair = (np.pad(_vectors(p)[:, layers], padding).astype(self._law.dtype) for p in (own, twins))
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
    """Divergences from the law of the first half of the clouds minus those of the second."""
    layers = clouds.shape[1]
    depth_weights, masses = jnp.full(layers, 1 / layers, clouds.dtype), jnp.tile(weights, (layers, 1))

    def divergence(cloud):
        return conditional_divergence(cloud, law, depth_weights, epsilon=epsilon, x_weights=masses).value

    own, twins = jnp.split(jax.lax.map(divergence, clouds), 2)
    return own - twins
