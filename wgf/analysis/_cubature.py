"""A goal-oriented cubature: a few particles, reweighted to represent a large sample."""

from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._backend.precision import Module
from .._checks import at_least, finite, instance, one_number
from ..encoders import AbstractEncoder
from ..flows import FlowSolution
from ..flows._solution import with_models
from ..measures import AbstractMeasure
from ..models import AbstractModel, AveragedODE
from ..objective import Objective

# The particles whose contributions are computed at once.
_BLOCK = 512
# The prompts whose values are computed at once.
_PROMPTS = 16

_Out = TypeVar("_Out")


def cubature(
    objective: Objective,
    pilot: FlowSolution,
    base: AbstractMeasure,
    width: int,
    *,
    tied: int = 1,
    share: float = 0.2,
) -> AbstractMeasure:
    r"""Reweight the first particles of a large sample of ρ₀, so that they act on the outputs as the whole sample does.

    The particles of `base` move as tracers \( X_\tau \) in the fields of the `pilot`. Each interval between saved τ is
    one Euler step, in the mean of the fields at its ends. To first order in the sample's error, a particle's mass
    contributes to the output of prompt b in proportion to its contribution to the loss of prompt b,

    \[ F_{b\tau}(\theta_{ij}) = \langle g(T_b(t_i, \tau), X_\tau(\theta_{ij})),\, p_b(t_i, \tau) \rangle. \]

    The new weights preserve the mean of F over the base, for every prompt, at the saved τ in the middle and at the
    last. Among all such weights they are the nearest to the old ones:

    \[ \sum_i w_i \sum_j a_{ij} F_{b\tau}(\theta_{ij}) = \sum_i w_i \sum_j a^{base}_{ij} F_{b\tau}(\theta_{ij}), \qquad
       \sum_j a_{ij} = 1, \qquad a_{ij} \ge 0. \]

    **Arguments:**

    - `objective`: Q.
    - `pilot`: a flow of [`wgf.AveragedODE`][] that is saved at a few τ from 0 to the end. Its measure can be as small
      as 128 particles in all. Good values: five equidistant τ, four steps of `diffrax.Heun()`.
    - `base`: a measure of initial particles at the depth nodes of the pilot. It can be large: its particles cost a few
      evaluations each, while a particle of a flow costs one evaluation per stage. Best: `SignPairs(Sobol())` at the
      stage times of [`wgf.measures.EqualEighths`][], drawn jointly.
    - `width`: the number of particles that are kept at each node, the first ones of the base. Good values: a tenth of
      the base's width.
    - `tied`: the number of adjacent particles that share a weight. Use 2 for sign pairs, which keeps all odd integrals
      exact.
    - `share`: the most means that are preserved, as a share of the free weights. If there are more, the means of the
      first principal components are preserved. Where no weights ≥ 0 do so, half as many are tried, and so on.

    **Returns:** the first `width` particles of `base`, with new weights.

    **Raises:** `ValueError` if the base's nodes are not the pilot's, the width is above the base's or is not a multiple
    of `tied`, or a kept particle's weight is zero.

    Cost: per particle of the base one gradient of the encoder for each Euler step, and its values at two τ; per saved τ
    the adjoint of the pilot. In the first step one gradient serves both particles of a pair that the encoder's
    reflection maps to each other. The error is at least that of the base. A prompt that the pilot fits exactly has no
    features. Not for `jit`.

    Good values: errors of at most 3e-3 of the labels'. There it takes the fewest seconds of all methods that
    benchmarks/work_precision.py compares.
    """
    instance("objective", objective, Objective, "a wgf.Objective")
    with_models("pilot", instance("pilot", pilot, FlowSolution, "a solution of wgf.flow"))
    instance("base", base, AbstractMeasure, "a measure over depth, e.g. of wgf.measures.Gaussian")
    width, tied = at_least("width", width, 1), at_least("tied", tied, 1)
    instance("pilot", pilot.models, AveragedODE, "the flow of a wgf.AveragedODE")
    finite("pilot", pilot.objective)
    if not 0 < one_number("share", share) <= 1:
        raise ValueError(f"`share` must be above 0 and at most 1; got {share}.")
    _check(pilot, base, width, tied)
    paired = _in_pairs(pilot.models.encoder, base.particles)
    features = np.asarray(_contributions(objective, pilot, base.particles, paired), np.float64)
    shares = np.asarray(base.depth_weights / jnp.sum(base.depth_weights), np.float64)
    target = np.einsum("i,ij,ijr->r", shares, np.asarray(base.weights, np.float64), features)
    weights = np.asarray(base.weights[:, :width], np.float64)
    weights = weights / weights.sum(axis=1, keepdims=True)
    own, masses = _tied(features[:, :width], weights, tied)
    weights = weights * np.repeat(_factors(own, masses, shares, target, share), tied, axis=1)
    particles = jax.tree.map(lambda leaf: leaf[:, :width], base.particles)
    return eqx.tree_at(lambda m: (m.particles, m.weights), base, (particles, jnp.asarray(weights, base.weights.dtype)))


def _check(pilot: FlowSolution, base: AbstractMeasure, width: int, tied: int) -> None:
    nodes = pilot.model_at(0).measure.depths
    if base.depths.shape != nodes.shape or not np.allclose(base.depths, nodes, atol=1e-6):
        raise ValueError(f"`base` must have the pilot's depth nodes, {nodes}; got {base.depths}.")
    if width % tied:
        raise ValueError(f"`width` must be a multiple of `tied`, {tied}; got {width}.")
    if width > base.width:
        raise ValueError(f"`width` must be at most the width of the base, {base.width}; got {width}.")
    if not bool(jnp.all(base.weights[:, :width] > 0)):
        raise ValueError("`base` must have positive weights, and no tracers, where particles are kept; got a zero.")


class _Fields(Module):
    """Tokens and adjoint at one training time, at each depth node, or at one."""

    tokens: Float[Array, "*nodes batch token_dim length"]
    costates: Float[Array, "*nodes batch token_dim length"]


def _in_pairs(encoder: AbstractEncoder, particles: PyTree[Array]) -> bool:
    """Whether particles 2j and 2j + 1 are reflections of each other."""
    if not encoder.is_odd:
        return False
    mirrored = encoder.reflect(jax.tree.map(lambda leaf: leaf[:, ::2], particles))
    return bool(eqx.tree_equal(mirrored, jax.tree.map(lambda leaf: leaf[:, 1::2], particles)))


@eqx.filter_jit
def _contributions(
    objective: Objective, pilot: FlowSolution, particles: PyTree[Array], paired: bool
) -> Float[Array, "depth width features"]:
    """The contribution of every particle to every prompt, at the saved τ in the middle and at the last.

    Particles move from one saved τ to the next by an explicit Euler step, in the mean of the fields at both.
    """
    arrays, static = eqx.partition(pilot.models, eqx.is_array)
    fields = jax.lax.map(lambda leaves: _fields(objective, eqx.combine(leaves, static)), arrays)
    encoder, last = pilot.model_at(0).encoder, len(pilot.taus) - 1

    def step(particles, inputs):
        fields, size = inputs
        slopes = _slopes(objective, encoder, fields, particles)
        return jax.tree.map(lambda x, slope: x - size * slope, particles, slopes), None

    def moved(particles, first, last):
        means = jax.tree.map(lambda leaf: (leaf[first:last] + leaf[first + 1 : last + 1]) / 2, fields)
        return jax.lax.scan(step, particles, (means, jnp.diff(pilot.taus[first : last + 1])))[0]

    found, first = [], 0
    if paired:
        mean = jax.tree.map(lambda leaf: (leaf[0] + leaf[1]) / 2, fields)
        particles = _step_of_pairs(objective, encoder, mean, pilot.taus[1] - pilot.taus[0], particles)
        first = 1
    for matched in sorted({(last + 1) // 2, last}):
        particles, first = moved(particles, first, matched), matched
        found.append(_parts(encoder, jax.tree.map(lambda leaf, at=matched: leaf[at], fields), particles))
    return jnp.concatenate(found, axis=-1)


def _step_of_pairs(
    objective: Objective, encoder: AbstractEncoder, fields: _Fields, step: Float[Array, ""], particles: PyTree[Array]
) -> PyTree[Array]:
    r"""An Euler step of pairs (θ, ιθ) from the slopes of their first halves.

    Since g(T, ιθ) = −g(T, θ), the slope at ιθ without decay is −ι of the slope at θ. With s = ∇F + λθ, the step takes
    ιθ to ι(θ + h (s − 2λθ)).
    """
    halves = jax.tree.map(lambda leaf: leaf[:, ::2], particles)
    slopes = _slopes(objective, encoder, fields, halves)
    decay = 2 * objective.weight_decay
    first = jax.tree.map(lambda x, s: x - step * s, halves, slopes)
    mirrored = encoder.reflect(jax.tree.map(lambda x, s: x + step * (s - decay * x), halves, slopes))
    return jax.tree.map(lambda x, y, like: jnp.stack([x, y], axis=2).reshape(like.shape), first, mirrored, particles)


def _fields(objective: Objective, model: AbstractModel) -> _Fields:
    adjoint = objective.adjoint(model)
    depths = model.measure.depths
    return _Fields(jax.vmap(adjoint.tokens)(depths), jax.vmap(adjoint.costates)(depths))


def _parts(encoder: AbstractEncoder, fields: _Fields, particles: PyTree[Array]) -> Float[Array, "depth width batch"]:
    r"""Each prompt's part of δQ/δρ at every particle, without decay.

    An average over particles is linear in their masses, so the part of prompt b at a particle is the derivative of
    \( \langle \sum_j a_j \, g(T_b, \theta_j),\, p_b \rangle \) in its mass. The encoder's fast average gives it.
    """

    def of_block(particles, fields):
        ones = jnp.ones(jax.tree.leaves(particles)[0].shape[0], fields.tokens.dtype)

        def of_prompt(prompt):
            def paired(masses):
                return jnp.sum(encoder.mean(particles, masses, prompt.tokens[None])[0] * prompt.costates)

            return jax.grad(paired)(ones)

        return jax.lax.map(of_prompt, fields, batch_size=_PROMPTS).T

    return _at_nodes(of_block, fields, particles)


def _slopes(objective: Objective, encoder: AbstractEncoder, fields: _Fields, particles: PyTree[Array]) -> PyTree[Array]:
    """The gradient of δQ/δρ at every particle, of all prompts at once."""

    def of_block(particles, fields):
        ones = jnp.ones(jax.tree.leaves(particles)[0].shape[0], fields.tokens.dtype)
        costates = objective.prompts.weights[:, None, None] * fields.costates

        def paired(particles):
            return jnp.sum(encoder.mean(particles, ones, fields.tokens) * costates)

        decay = objective.weight_decay
        return jax.tree.map(lambda slope, x: slope + decay * x, jax.grad(paired)(particles), particles)

    return _at_nodes(of_block, fields, particles)


def _at_nodes(compute: Callable[[PyTree[Array], _Fields], _Out], fields: _Fields, particles: PyTree[Array]) -> _Out:
    """`compute(particles, fields)` at each depth node, for blocks of particles."""

    def at_node(inputs):
        particles, fields = inputs
        return _in_blocks(lambda block: compute(block, fields), particles)

    return jax.lax.map(at_node, (particles, fields))


def _in_blocks(compute: Callable[[PyTree[Array]], _Out], particles: PyTree[Array]) -> _Out:
    """`compute(particles)` for blocks of particles that stay in a CPU's cache, one after the other."""
    width = jax.tree.leaves(particles)[0].shape[0]
    whole = width - width % _BLOCK
    if whole == 0:
        return compute(particles)
    blocks = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, _BLOCK, *leaf.shape[1:]), particles)
    found = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), jax.lax.map(compute, blocks))
    if whole == width:
        return found
    rest = compute(jax.tree.map(lambda leaf: leaf[whole:], particles))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), found, rest)


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
    # The sum of the weights at a node is one more moment: that of the function which is 1 at this node.
    sums = np.repeat(np.eye(depth), width, axis=0)
    while components.shape[1]:
        rows = np.concatenate([flat @ components, sums], axis=1)
        factors = nearest_weights(rows, masses, np.concatenate([target @ components, depth_weights]))
        if factors is not None:
            return factors.reshape(depth, width)
        components = components[:, : components.shape[1] // 2]
    return np.ones((depth, width))


def _principal(
    features: Float[np.ndarray, "count r"], masses: Float[np.ndarray, " count"], most: int
) -> Float[np.ndarray, "r kept"]:
    """At most `most` principal directions of the features, of unit variance. All features count equally."""
    centred = (features - masses @ features) * np.sqrt(masses)[:, None]
    spread = np.linalg.norm(centred, axis=0)
    scale = 1 / np.where(spread > 0, spread, 1)
    _, values, directions = np.linalg.svd(centred * scale, full_matrices=False)
    kept = min(most, int(np.sum(values > 1e-4 * values[0])))
    return scale[:, None] * directions[:kept].T / values[:kept]


def nearest_weights(
    rows: Float[np.ndarray, "count moments"], masses: Float[np.ndarray, " count"], target: Float[np.ndarray, " moments"]
) -> Float[np.ndarray, " count"] | None:
    r"""Factors ω ≥ 0 of small \( \sum_k m_k (\omega_k - 1)^2 \) with \( \sum_k m_k \omega_k F_k = \) `target`.

    If the minimum has no negative factors, it is returned. Otherwise an active set is used: negative factors are set to
    0 and the others are solved for again. The result is within a few per cent of the minimum. None if no such factors
    are found.
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
    return factors if factors.min() >= 0 and reached else None
