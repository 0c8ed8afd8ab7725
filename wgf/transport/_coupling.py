"""The coupling distance between particles and the tracers with the same starts."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import instance
from ..measures import AbstractMeasure, coordinates


def coupling_distance(measure: AbstractMeasure, tracers: AbstractMeasure) -> Float[Array, ""]:
    r"""\( \big(\sum_{ij} w_i a_{ij} \|\theta_{ij}(\tau) - X_\tau(\theta_{ij}(0), t_i)\|^2\big)^{1/2} \): particles
    against their tracers in the limit.

    It bounds the conditional W₂ between the two clouds from above. In any particle dimension it falls at the rate of
    propagation of chaos, while a divergence between independent samples would show their noise.

    **Arguments:**

    - `measure`: the finite model's measure.
    - `tracers`: the measure of its tracers, with the same depth, width and structure.

    **Returns:** a distance (not a square), in the units of the particles.

    **Raises:** `ValueError` if depth, width or the shapes of the particles differ.

    **Source:** A.-S. Sznitman, *Topics in propagation of chaos*, 1991; arXiv:2410.23610, section 3.
    """
    for name, value in (("measure", measure), ("tracers", tracers)):
        instance(name, value, AbstractMeasure, "a measure over depth, e.g. model.measure")
    if measure.weights.shape != tracers.weights.shape:
        raise ValueError(
            f"`tracers` must have the measure's depth and width, {measure.weights.shape}; got {tracers.weights.shape}."
        )
    ours, theirs = ([leaf.shape for leaf in jax.tree.leaves(each.particles)] for each in (measure, tracers))
    if ours != theirs:
        raise ValueError(f"`tracers` must have particles of the measure's shapes, {ours}; got {theirs}.")
    return _distance(measure, tracers)


@eqx.filter_jit
def _distance(measure: AbstractMeasure, tracers: AbstractMeasure) -> Float[Array, ""]:
    squares = jnp.sum((coordinates(measure.particles) - coordinates(tracers.particles)) ** 2, axis=-1)
    return jnp.sqrt(jnp.sum(measure.masses * squares))
