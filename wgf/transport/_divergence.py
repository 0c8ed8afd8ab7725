"""The results of a Sinkhorn divergence."""

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int

from .._backend.precision import Module


class Potentials(Module):
    r"""The dual potentials of a divergence's three transport problems, in units of squared distance.

    They belong to the clouds shifted to mean 0, or as given if OTT's own solver is used. The density of a plan with
    respect to the product of its marginals is \( e^{(f_i + g_j - C_{ij}) / \varepsilon} \); OTT's potentials are these
    plus ε times the logarithm of the weights. The potentials of a similar problem, e.g. of a few steps earlier, are
    good starting values.

    - `x`, `y`: potentials of the transport of one cloud to the other, at the points of each.
    - `x_self`, `y_self`: potentials of the transport of each cloud to itself.
    """

    x: Float[Array, "*batch n"]
    y: Float[Array, "*batch m"]
    x_self: Float[Array, "*batch n"]
    y_self: Float[Array, "*batch m"]


class Outputs(NamedTuple):
    """OTT's outputs, `ott.solvers.linear.sinkhorn.SinkhornOutput`, of a divergence's three transport problems.

    - `between`: of the transport of one cloud to the other.
    - `x_self`, `y_self`: of the transports of each cloud to itself.
    """

    between: Any
    x_self: Any
    y_self: Any


class Divergence(Module):
    """A debiased Sinkhorn divergence, and whether it is reliable.

    - `value`: S_ε, in units of squared distance.
    - `epsilon`: the regularisation used.
    - `converged`: whether all three transport problems met the marginal tolerance, for valid clouds, weights and ε. The
      numbers must also resolve the problem: the spacing of the potentials must be below 0.01 ε. If False, the value may
      be far off: raise `max_iterations` or ε, or compute in float64. If True, a share of the mass below the tolerance
      may still be misplaced. Between groups whose squared distance is far above ε, its cost can exceed the value.
    - `iterations`: the most iterations of the three problems.
    - `potentials`: [`wgf.transport.Potentials`][], with a depth axis if the value is an integral over depths.
    - `ot`: OTT's outputs `between`, `x_self` and `y_self`, e.g. `ot.between.matrix` is the plan. Their geometries hold
      the clouds, shifted to mean 0 as those of the potentials. They have the axes of the potentials.
    """

    value: Float[Array, "*batch"]
    epsilon: Float[Array, "*batch"]
    converged: Bool[Array, "*batch"]
    iterations: Int[Array, "*batch"]
    potentials: Potentials
    ot: Outputs


class Excess(Module):
    """A divergence with its noise floor, the value that sampling alone would give.

    - `value`: the divergence of the two clouds.
    - `floor`: the divergence of two independent samples of one law, of the same sizes and at the same ε.
    - `epsilon`: the regularisation of both.
    - `converged`: whether both are reliable.
    """

    value: Float[Array, "*batch"]
    floor: Float[Array, "*batch"]
    epsilon: Float[Array, "*batch"]
    converged: Bool[Array, "*batch"]

    @property
    def excess(self) -> Float[Array, "*batch"]:
        """The divergence minus its noise floor, near or below 0 if the two laws cannot be distinguished."""
        return self.value - self.floor
