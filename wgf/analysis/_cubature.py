"""A goal-oriented cubature: a sample reweighted so that it makes the fields of a far larger one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._checks import at_least
from ..encoders import AbstractEncoder
from ..flows import FlowSolution
from ..measures import AbstractMeasure
from ..models import AbstractModel
from ..objective import Objective


def cubature(
    objective: Objective,
    pilot: FlowSolution,
    sample: AbstractMeasure,
    base: AbstractMeasure,
    *,
    tied: int = 1,
    share: float = 0.2,
) -> AbstractMeasure:
    r"""Reweight a small sample of ρ₀ so that its fields along a pilot flow have the means of a large one's.

    To first order, the error of the limit's outputs is a linear functional of what the particles' errors do to the
    fields that tokens and adjoint meet. The particles of `sample` and `base` ride as tracers through the fields of the
    `pilot`, by an Euler step from each saved τ to the next. Features \( F_k(\theta_{ij}) \) are the entries of
    \( g(T_b(t_i, \tau), X_\tau(\theta_{ij})) \) in the query's column, for every prompt b and later τ, times 1 and
    2t_i − 1; of them the first principal components are kept. The new weights are those nearest to the old with

    \[ \sum_i w_i \sum_j a_{ij} F_k(\theta_{ij}) = \sum_i w_i \sum_j a^{base}_{ij} F_k(\theta^{base}_{ij}), \qquad
       \sum_j a_{ij} = 1, \qquad a_{ij} \ge 0. \]

    **Arguments:**

    - `objective`: Q.
    - `pilot`: a flow of [`wgf.AveragedODE`][] at a few τ from 0 to the end, of a measure as small as 16 to 64
      particles a node. Good values: three equidistant τ.
    - `sample`, `base`: measures of initial particles at the depth nodes of the pilot's. The base can be large: a
      particle costs a few evaluations in all, where one of the flow costs as many as the flow takes stages.
      `Whitened(SignPairs(Sobol()))` is best for both.
    - `tied`: so many particles of `sample` next to one another share a weight: 2 for sign pairs, which keeps all odd
      integrals exact.
    - `share`: the most principal components, as a share of the free weights.

    **Returns:** `sample` with new weights.

    **Raises:** `ValueError` if the measures' nodes differ, a weight of `sample` is zero, the width is no multiple of
    `tied`, or no non-negative weights exist (lower `share`).

    Cost: for each particle of sample and base and each later τ, one gradient of the encoder and one evaluation; and the
    adjoint of the pilot at each τ. The error is at least the base's own. Best where the particles have many dimensions
    and errors of 3e-3 of the labels' or less are asked for: there it takes the fewest evaluations of heads of all that
    benchmarks/work_precision.py compares.
    """
    _check(pilot, sample, base)
    if sample.width % at_least("tied", tied, 1):
        raise ValueError(f"`tied` must divide the width of the sample, {sample.width}; got {tied}.")
    features = np.asarray(_ride(objective, pilot, _beside(sample, base)), np.float64)
    features = _times_depth(features, np.asarray(sample.depths))
    shares = np.asarray(sample.depth_weights / jnp.sum(sample.depth_weights), np.float64)
    target = np.einsum("i,ij,ijr->r", shares, np.asarray(base.weights, np.float64), features[:, sample.width :])
    weights = np.asarray(sample.weights, np.float64)
    own, masses = _tied(features[:, : sample.width], weights, tied)
    factors = _factors(own, masses, shares, target, share)
    weights = weights * np.repeat(factors, tied, axis=1)
    return eqx.tree_at(lambda m: m.weights, sample, jnp.asarray(weights, sample.weights.dtype))


def _check(pilot: FlowSolution, sample: AbstractMeasure, base: AbstractMeasure) -> None:
    nodes = pilot.model_at(0).measure.depths
    for name, measure in (("sample", sample), ("base", base)):
        if measure.depths.shape != nodes.shape or not np.allclose(measure.depths, nodes, atol=1e-6):
            raise ValueError(f"`{name}` must have the pilot's depth nodes, {nodes}; got {measure.depths}.")
    if not bool(jnp.all(sample.weights > 0)):
        raise ValueError("`sample` must have positive weights, and no tracers; got a weight of zero.")


def _beside(first: AbstractMeasure, second: AbstractMeasure) -> PyTree[Array]:
    """The particles of two measures side by side."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), first.particles, second.particles)


class _Fields(eqx.Module):
    """Tokens and adjoint at one training time, at each depth node."""

    tokens: Float[Array, "nodes batch token_dim length"]
    costates: Float[Array, "nodes batch token_dim length"]


@eqx.filter_jit
def _ride(objective: Objective, pilot: FlowSolution, particles: PyTree[Array]) -> Float[Array, "depth width features"]:
    """The features of every particle at each saved τ but the first.

    From one saved τ to the next by an explicit Euler step in the mean of the fields at both.
    """
    arrays, static = eqx.partition(pilot.models, eqx.is_array)
    fields = jax.lax.map(lambda leaves: _fields(objective, eqx.combine(leaves, static)), arrays)
    encoder = pilot.model_at(0).encoder

    def leg(particles, inputs):
        before, after, step = inputs
        mean = jax.tree.map(lambda a, b: (a + b) / 2, before, after)
        particles = _advance(objective, encoder, mean, particles, step)
        return particles, _query_column(encoder, after.tokens, particles)

    starts = jax.tree.map(lambda leaf: leaf[:-1], fields)
    ends = jax.tree.map(lambda leaf: leaf[1:], fields)
    _, seen = jax.lax.scan(leg, particles, (starts, ends, jnp.diff(pilot.taus)))
    return jnp.concatenate(list(seen), axis=-1)


def _fields(objective: Objective, model: AbstractModel) -> _Fields:
    adjoint = objective.adjoint(model)
    depths = model.measure.depths
    return _Fields(jax.vmap(adjoint.tokens)(depths), jax.vmap(adjoint.costates)(depths))


def _advance(
    objective: Objective, encoder: AbstractEncoder, fields: _Fields, particles: PyTree[Array], step: Array
) -> PyTree[Array]:
    """One Euler step of all particles in the field's velocity."""

    def at_node(inputs):
        particles, tokens, costates = inputs
        ones = jnp.ones(jax.tree.leaves(particles)[0].shape[0], tokens.dtype)

        def pairing(particles):
            paired = jnp.sum(encoder.mean(particles, ones, tokens) * costates, axis=(1, 2))
            return jnp.sum(objective.prompts.weights * paired)

        slopes = jax.grad(pairing)(particles)
        return jax.tree.map(lambda x, slope: x - step * (slope + objective.weight_decay * x), particles, slopes)

    return jax.lax.map(at_node, (particles, fields.tokens, fields.costates))


def _query_column(
    encoder: AbstractEncoder, tokens: Float[Array, "depth batch token_dim length"], particles: PyTree[Array]
) -> Float[Array, "depth width features"]:
    """What each particle adds to the query's column of every prompt."""

    def at_node(inputs):
        particles, tokens = inputs

        def of_one(particle):
            return jax.vmap(encoder, in_axes=(None, 0))(particle, tokens)[:, :, -1].ravel()

        return jax.lax.map(of_one, particles, batch_size=128)

    return jax.lax.map(at_node, (particles, tokens))


def _times_depth(
    features: Float[np.ndarray, "depth width r"], depths: Float[np.ndarray, " depth"]
) -> Float[np.ndarray, "depth width twice_r"]:
    """The features, and beside them their products with 2t − 1."""
    return np.concatenate([features, features * (2 * depths - 1)[:, None, None]], axis=-1)


def _tied(
    features: Float[np.ndarray, "depth width r"], weights: Float[np.ndarray, "depth width"], tied: int
) -> tuple[Float[np.ndarray, "depth groups r"], Float[np.ndarray, "depth groups"]]:
    """Mean features and summed weights of the particles that share a weight."""
    depth, width, _ = features.shape
    shares = weights.reshape(depth, width // tied, tied)
    masses = shares.sum(axis=2)
    grouped = features.reshape(depth, width // tied, tied, -1)
    return np.einsum("ijkr,ijk->ijr", grouped, shares / masses[:, :, None]), masses


def _factors(
    features: Float[np.ndarray, "depth width r"],
    weights: Float[np.ndarray, "depth width"],
    depth_weights: Float[np.ndarray, " depth"],
    target: Float[np.ndarray, " r"],
    share: float,
) -> Float[np.ndarray, "depth width"]:
    """Factors of the weights for which the features' principal components have the target means."""
    depth, width, _ = features.shape
    masses = (depth_weights[:, None] * weights).ravel()
    flat = features.reshape(depth * width, -1)
    components = _principal(flat, masses, int(share * (len(masses) - depth)))
    # The sum of the weights at each node is a moment like any other: of the function that is 1 there.
    rows = np.concatenate([flat @ components, np.repeat(np.eye(depth), width, axis=0)], axis=1)
    factors = nearest_weights(rows, masses, np.concatenate([target @ components, depth_weights]))
    return factors.reshape(depth, width)


def _principal(
    features: Float[np.ndarray, "count r"], masses: Float[np.ndarray, " count"], most: int
) -> Float[np.ndarray, "r kept"]:
    """The principal directions of the features, at most so many, scaled to unit variance."""
    centred = (features - masses @ features) * np.sqrt(masses)[:, None]
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    kept = min(most, int(np.sum(values > 1e-4 * values[0])))
    return directions[:kept].T / values[:kept]


def nearest_weights(
    rows: Float[np.ndarray, "count moments"], masses: Float[np.ndarray, " count"], target: Float[np.ndarray, " moments"]
) -> Float[np.ndarray, " count"]:
    r"""The factors ω ≥ 0 near 1, in \( \sum_k m_k (\omega_k - 1)^2 \), with \( \sum_k m_k \omega_k F_k = \) `target`.

    The least where all are positive. Else by an active set: factors that would be negative are held at 0 and the others
    are solved for again, which is within a few per cent of the least.

    **Raises:** `ValueError` if no such factors are found.
    """
    factors, free = np.ones(len(masses)), np.ones(len(masses), bool)
    for _ in range(50):
        scaled = rows[free] * np.sqrt(masses[free])[:, None]
        gap = target - masses[free] @ rows[free]
        change, *_ = np.linalg.lstsq(scaled.T, gap, rcond=1e-12)
        factors = np.zeros(len(masses))
        factors[free] = 1 + change / np.sqrt(masses[free])
        if factors.min() >= 0:
            break
        free &= factors > 0
    reached = np.allclose((masses * factors) @ rows, target, atol=1e-9 * max(1, np.abs(target).max()))
    if factors.min() < 0 or not reached:
        raise ValueError("`share` must leave room for weights that are not negative: lower it, or widen `sample`.")
    return factors
