"""What a Sinkhorn divergence reports."""

from jaxtyping import Array, Bool, Float, Int

from .._backend.precision import Module


class Potentials(Module):
    """The dual potentials of a divergence's three transport problems, in units of squared distance.

    Of the clouds moved to a mean of 0 each. Those of a few steps ago are where to start from.

    - `x`, `y`: of the transport of one cloud to the other, at the points of each.
    - `x_self`, `y_self`: of the transport of each cloud to itself.
    """

    x: Float[Array, "*batch n"]
    y: Float[Array, "*batch m"]
    x_self: Float[Array, "*batch n"]
    y_self: Float[Array, "*batch m"]


class Divergence(Module):
    """A debiased Sinkhorn divergence and whether to trust it.

    - `value`: S_ε, in units of squared distance.
    - `epsilon`: the regularisation used.
    - `converged`: whether all three of its transport problems met the marginal tolerance, for clouds, weights and ε
      that are valid and that these numbers resolve: the potentials' spacing is below 0.01 ε. If not, the value may be
      far off: raise `max_iterations` or ε, or compute in float64. A share of the mass below the tolerance may still be
      misplaced; between groups whose squared distance is far above ε it can be worth more than the value.
    - `iterations`: the most that one of the three took.
    - `potentials`: [`wgf.transport.Potentials`][], with an axis of depths where the value is an integral over them.
    """

    value: Float[Array, "*batch"]
    epsilon: Float[Array, "*batch"]
    converged: Bool[Array, "*batch"]
    iterations: Int[Array, "*batch"]
    potentials: Potentials


class Excess(Module):
    """A divergence beside its noise floor: what sampling alone would show.

    - `value`: the divergence of the two clouds.
    - `floor`: that of two independent samples of one law, of the same sizes and at the same ε.
    - `epsilon`: the regularisation of both.
    - `converged`: whether both are to be trusted.
    """

    value: Float[Array, "*batch"]
    floor: Float[Array, "*batch"]
    epsilon: Float[Array, "*batch"]
    converged: Bool[Array, "*batch"]

    @property
    def excess(self) -> Float[Array, "*batch"]:
        """The divergence above its noise floor; near or below 0 where the two laws cannot be told apart."""
        return self.value - self.floor
