"""The noise in a gap: what the reference's own sampling error puts into it."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._backend.precision import Module
from ._estimate import student_quantile


class Resolved(Module):
    """Whether each gap stands out of the noise, `[saves]` each; None where the noise of that gap is unknown."""

    objective: Bool[Array, " saves"]
    risk: Bool[Array, " saves"]
    output: Bool[Array, " saves"]
    coupling: Bool[Array, " saves"] | None
    excess: Bool[Array, " saves"] | None


class Noise(Module):
    r"""The limit's own error as it appears in each gap: one root mean square, from R replicates, `[saves]` each.

    The limit's sample is independent of the finite model's, so that squares add: the expected square of a measured gap
    is that of the true one plus that of the noise.

    - `objective`, `risk`: of Q and R of the pooled solution ([`wgf.analysis.Estimate`][], `error`).
    - `output`: of its outputs, root mean square over prompts.
    - `coupling`: of its tracers, a mean square like the coupling distance
      (`wgf.analysis.Replicates.transport_error`); None without tracers.
    - `excess`: the standard deviation of the Sinkhorn excess that a sample of the limit's own law would show; None with
      tracers, whose floor shares the finite model's own draw and needs another null.
    - `replicates`: R.
    """

    replicates: int = eqx.field(static=True)
    objective: Float[Array, " saves"]
    risk: Float[Array, " saves"]
    output: Float[Array, " saves"]
    coupling: Float[Array, " saves"] | None
    excess: Float[Array, " saves"] | None

    @property
    def factor(self) -> float:
        """How many times the noise a gap must be: Student's quantile of 95 % confidence, at R − 1 degrees."""
        return student_quantile(self.replicates)

    def resolve(
        self,
        objective: Float[Array, " saves"],
        risk: Float[Array, " saves"],
        output: Float[Array, " saves"],
        coupling: Float[Array, " saves"] | None,
        excess: Float[Array, " saves"],
    ) -> Resolved:
        """Which gaps are more than `factor` times the noise (squared distances more than its square)."""
        factor = self.factor
        return Resolved(
            objective=jnp.abs(objective) > factor * self.objective,
            risk=jnp.abs(risk) > factor * self.risk,
            output=output > factor * self.output,
            coupling=None if coupling is None or self.coupling is None else coupling > factor**2 * self.coupling,
            excess=None if self.excess is None else excess > factor * self.excess,
        )
