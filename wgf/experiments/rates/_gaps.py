"""The gaps of `wgf rates` between finite models and the limit, corrected for the limit's own sampling error."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from ...objective import Objective
from ._limit import Reference
from ._training import FinalValues


class SeedGaps(NamedTuple):
    """The gaps of one size to the limit, `[seeds]` each.

    - `output`, `coupling`: root mean squares over prompts, over particles.
    - `risk`, `objective`: absolute differences.
    - `bias`: jackknife values of the squared bias of the outputs. Their mean estimates it, of either sign, and their
      standard error is its.
    """

    output: np.ndarray
    risk: np.ndarray
    objective: np.ndarray
    coupling: np.ndarray
    bias: np.ndarray


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
    weights = np.asarray(objective.prompts.weights, np.float64)
    return SeedGaps(
        output=subtract_noise(np.sqrt(off**2 @ weights), noise.output),
        risk=subtract_noise(np.asarray(ends.risk) - float(reference.risk.value), noise.risk),
        objective=subtract_noise(np.asarray(ends.objective) - float(reference.objective.value), noise.objective),
        coupling=np.full(len(off), np.nan),
        bias=squared_bias(off, weights) - noise.output**2,
    )


def squared_bias(off: Float[np.ndarray, "seeds batch"], weights: Float[np.ndarray, " batch"]) -> np.ndarray:
    r"""Jackknife values of \( E_\mu (E\,d)^2 \), the square of the mean over seeds of differences d, `[seeds]`.

    The square of a mean over S seeds holds a share 1/S of the variance, which is subtracted: the mean of the values is
    \( E_\mu [\bar d^2 - s^2/S] \), without bias, with the variance s² of the seeds. Their standard error is right where
    the bias rules, and up to 1.6 times too wide where the scatter does.
    """

    def estimate(off: np.ndarray) -> float:
        return float((np.mean(off, axis=0) ** 2 - np.var(off, axis=0, ddof=1) / len(off)) @ weights)

    seeds = len(off)
    others = np.array([estimate(np.delete(off, seed, axis=0)) for seed in range(seeds)])
    return seeds * estimate(off) - (seeds - 1) * others


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
