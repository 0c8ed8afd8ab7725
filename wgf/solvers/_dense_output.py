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

    It differs from `diffrax.DenseInterpolation` in two points. A depth that rounding has put outside the solve is
    clipped; Diffrax returns NaN. The step is found by comparison with all knots; Diffrax searches in a loop, and XLA
    for GPUs does not compile a slice whose index comes from a loop within a loop.

    - `knots`: the ends of the steps, increasing, `[steps + 1]`: depth, or minus depth if `direction` is −1.
    - `size`: the number of knots in use.
    - `infos`: the data of the interpolation, leading axis `[steps]`.
    - `interpolation`: the solver's interpolation within one step.
    """

    knots: Float[Array, " knots"]
    size: Int[Array, ""] | int
    infos: PyTree[Array]
    interpolation: Callable[..., diffrax.AbstractLocalInterpolation] = eqx.field(static=True)
    direction: int = eqx.field(static=True)

    def evaluate(self, depth: ArrayLike) -> Batch:
        """The tokens at one depth t."""
        place = self.direction * check_depth("depth", depth).astype(self.knots.dtype)
        # Knots after the first `size` are infinite, and above every depth.
        step = jnp.clip(jnp.sum(self.knots[1:] <= place), 0, self.size - 2)
        begin, end = self.knots[step], self.knots[step + 1]
        info = jax.tree.map(lambda leaf: leaf[step], self.infos)
        return self.interpolation(t0=begin, t1=end, **info).evaluate(place)


def of_diffrax(dense: diffrax.DenseInterpolation, direction: int) -> DenseOutput:
    """A Diffrax dense output of a solve forward (1) or backward (−1) in depth, as a `DenseOutput`."""
    return DenseOutput(*knots_of_diffrax(dense), direction)
