"""The error norm of a flow's step size control."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._backend.precision import Module


class ParticleNorm(Module):
    r"""The worst particle's error, \( \max_{ij : a_{ij} > 0} \mathrm{RMS}(\theta_{ij}) \) over the coordinates of each.

    A root mean square over all particles would let a few fast ones be arbitrarily wrong in a large crowd. Particles of
    weight zero stay out: tracers must not change the steps.

    **Arguments:**

    - `weights`: the particle weights `[depth, width]`.
    """

    weights: Float[Array, "depth width"]

    def __call__(self, particles: PyTree[Array]) -> Float[Array, ""]:
        """The norm of particles `[depth, width, ...]`."""
        leaves = [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(particles)]
        rms = _safe_sqrt(jnp.mean(jnp.concatenate(leaves, axis=-1) ** 2, axis=-1))
        return jnp.max(jnp.where(self.weights > 0, rms, 0))


def _safe_sqrt(x: Array) -> Array:
    """The square root, with derivative 0 (not infinite) at 0."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)
