"""The dense output of a depth solve: its solver's own interpolation, at any depth."""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from .._backend.compat import knots_of_diffrax
from .._backend.precision import Module
from .._depth import check_depth

Batch = Float[Array, "batch token_dim length"]


class DenseOutput(Module):
    r"""Tokens at every depth, interpolated within the step \( [t_i, t_{i+1}] \) that holds it.

    What `diffrax.DenseInterpolation` is, in two points different. A depth that rounding has put outside of the solve is
    clipped, where Diffrax answers NaN. The step is found by comparison with all knots, where Diffrax searches in a
    loop: XLA for GPUs does not compile a slice at a place that a loop within a loop has found.

    - `knots`: where the steps begin and end, increasing: depth, or minus depth where `direction` is −1. `[steps + 1]`.
    - `size`: how many of the knots are filled.
    - `infos`: what the interpolation is made of, leading axis `[steps]`.
    - `interpolation`: the solver's own, within one step.
    """

    knots: Float[Array, " knots"]
    size: Int[Array, ""] | int
    infos: PyTree[Array]
    interpolation: Callable[..., diffrax.AbstractLocalInterpolation] = eqx.field(static=True)
    direction: int = eqx.field(static=True)

    def evaluate(self, depth: ArrayLike) -> Batch:
        """The tokens at one depth t."""
        place = self.direction * check_depth("depth", depth).astype(self.knots.dtype)
        # Knots beyond `size` are infinite: no depth has passed them.
        step = jnp.clip(jnp.sum(self.knots[1:] <= place), 0, self.size - 2)
        begin, end = self.knots[step], self.knots[step + 1]
        info = jax.tree.map(lambda leaf: leaf[step], self.infos)
        return self.interpolation(t0=begin, t1=end, **info).evaluate(place)


def of_diffrax(dense: diffrax.DenseInterpolation, direction: int) -> DenseOutput:
    """The same dense output as Diffrax's, of a solve forward (1) or backward (−1) in depth."""
    return DenseOutput(*knots_of_diffrax(dense), direction)
