"""The noise in a gap: the contribution of the reference's sampling error."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._backend.precision import Module
from ._estimate import student_quantile


class Resolved(Module):
    """Whether each gap exceeds the noise, `[saves]` each; None if the noise of that gap is unknown."""

    objective: Bool[Array, " saves"]
    risk: Bool[Array, " saves"]
    output: Bool[Array, " saves"]
    coupling: Bool[Array, " saves"] | None
    excess: Bool[Array, " saves"] | None


class Noise(Module):
    r"""The root mean square error of the limit in each gap, from R replicates, `[saves]` each.

    The limit's sample is independent of the finite model's, so squares add: the expected square of a measured gap is
    the square of the true gap plus the square of the noise.

    - `objective`, `risk`: the error of Q and R of the pooled solution ([`wgf.analysis.Estimate`][], `error`).
    - `output`: the error of its outputs, a root mean square over prompts.
    - `coupling`: the error of its tracers, a mean square like the coupling distance
      (`wgf.analysis.Replicates.transport_error`); None without tracers.
    - `excess`: the standard deviation of the Sinkhorn excess of a sample of the limit's own law. It is None with
      tracers, because their floor shares the finite model's draw and needs another null distribution.
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
        """The multiple of the noise that a gap must exceed: Student's 95 % quantile with R − 1 degrees of freedom."""
        return student_quantile(self.replicates)

    def resolve(
        self,
        objective: Float[Array, " saves"],
        risk: Float[Array, " saves"],
        output: Float[Array, " saves"],
        coupling: Float[Array, " saves"] | None,
        excess: Float[Array, " saves"],
    ) -> Resolved:
        """Which gaps exceed `factor` times the noise; the coupling distance, a square, must exceed `factor`² times."""
        factor = self.factor
        return Resolved(
            objective=jnp.abs(objective) > factor * self.objective,
            risk=jnp.abs(risk) > factor * self.risk,
            output=output > factor * self.output,
            coupling=None if coupling is None or self.coupling is None else coupling > factor**2 * self.coupling,
            excess=None if self.excess is None else excess > factor * self.excess,
        )
