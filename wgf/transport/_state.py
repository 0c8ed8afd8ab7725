"""The state of a Sinkhorn iteration between two kernels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int


class State(NamedTuple):
    """Potentials of the density of the plan with respect to the product of its marginals, and how exact they are."""

    f: Float[Array, " n"]
    g: Float[Array, " m"]
    # The L1 error of the plan's two marginals together.
    error: Float[Array, ""]
    iterations: Int[Array, ""]
    # The error of each iteration, as OTT lists them: -1 if it was not made, infinity if its error is not known.
    errors: Float[Array, " most"]
    # Whether the scalings of the last kernel stayed within the range of floating-point numbers.
    inside: Bool[Array, ""]

    def unfinished(self, threshold: ArrayLike, most: ArrayLike) -> Bool[Array, ""]:
        """Whether the error is above the threshold, with iterations left."""
        return (self.error > threshold) & (self.iterations < most)

    def iterated(self, error: Array, known: ArrayLike = True) -> "State":
        """The state after one more iteration, with its error if that is known."""
        listed = jnp.where(known, error, jnp.inf)
        errors = jax.lax.dynamic_update_index_in_dim(self.errors, listed, self.iterations, 0)
        error = jnp.where(known, error, self.error)
        return self._replace(error=error, iterations=self.iterations + 1, errors=errors)
