"""The debiased Sinkhorn divergence of two clouds, and along a curve of clouds."""

import importlib
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
from jaxtyping import Array, ArrayLike, Float

from ._divergence import Divergence, Potentials
from ._inputs import check_cloud, check_initial, check_pair, check_weights

if TYPE_CHECKING:
    from ._engine import Engine


def engine(*args: Any, **options: Any) -> "Engine":
    """Check the options of transport problems. OTT, which imports Matplotlib, is imported at the first of them."""
    with jax.ensure_compile_time_eval():
        module = importlib.import_module("._engine", __package__)
    return module.Engine.of(*args, **options)


def sinkhorn_divergence(
    x: Float[Array, "n dim"],
    y: Float[Array, "m dim"],
    *,
    epsilon: Any,
    x_weights: Float[Array, " n"] | None = None,
    y_weights: Float[Array, " m"] | None = None,
    threshold: ArrayLike = 1e-3,
    max_iterations: int = 2000,
    initial: Potentials | None = None,
    block: int | None = None,
    cost_fn: Any = None,
    solver: Any = None,
    tau_a: float = 1.0,
    tau_b: float = 1.0,
) -> Divergence:
    r"""\( S_\varepsilon(\alpha, \beta) = W_\varepsilon(\alpha, \beta) - \tfrac12 W_\varepsilon(\alpha, \alpha)
    - \tfrac12 W_\varepsilon(\beta, \beta) \) for the squared distance \( \|x - y\|^2 \).

    It tends to W₂² as ε → 0 and the samples grow. Two samples of one law have a positive divergence, which is large in
    high dimensions. Always compare a value with its noise floor ([`wgf.transport.Excess`][]).

    **Arguments:**

    - `x`, `y`: points `[n, P]` and `[m, P]`.
    - `epsilon`: ε > 0, in units of squared distance; [`wgf.transport.epsilon_from_scale`][] chooses one. The problem is
      \( W_\varepsilon = \min_\pi \int \|x - y\|^2 d\pi + \varepsilon\,\mathrm{KL}(\pi | \alpha \otimes \beta) \):
      the squared distance, not its half, and entropy relative to the product of the marginals. GeomLoss takes half of
      it: its `blur` is \( \sqrt{\varepsilon / 2} \), and twice its value is ours. Or a schedule of OTT, `Epsilon`.
    - `x_weights`, `y_weights`: weights with sum 1; default uniform. Weight 0 is allowed.
    - `threshold`: the error at which an iteration stops: the L1 error of both marginals together. Good values: 1e-3 for
      values, 1e-4 for gradients.
    - `max_iterations`: the most iterations of each of the three problems.
    - `initial`: starting potentials, from an earlier divergence of as many points. They are ignored if not finite.
    - `block`: the number of rows of a kernel to hold at once. Default: all rows if the kernel has at most 2²⁶ entries
      on a CPU, or fits a quarter of a GPU's memory; else a small block. A kernel in blocks is recomputed in each
      iteration.
    - `cost_fn`: a cost of OTT, `ott.geometry.costs.CostFn`. Default: the squared distance.
    - `solver`: a solver of OTT, `ott.solvers.linear.sinkhorn.Sinkhorn`, with its own threshold and limit. Create it
      once: each new one is compiled anew. For the transport of a cloud to itself its updates are averaged, as in OTT.
    - `tau_a`, `tau_b`: OTT's τ in (0, 1], below 1 for unbalanced transport, whose weights may have any positive sum.

    With another cost, a schedule, a solver or τ < 1, OTT solves the problems by its own iteration.

    **Returns:** [`wgf.transport.Divergence`][], with OTT's outputs. Its first derivatives in points, ε and weights are
    those of the converged value. In the weights, whose sum is fixed, they are defined up to a constant.

    **Raises:** `ValueError` if the clouds are empty or not finite, their dimensions or types differ, weights are
    negative or do not sum to 1, ε or `threshold` is not positive, a count is below 1, `initial` has other sizes, or an
    option is not OTT's. Traced values (under `jit`) are not checked: bad ones give a result that has not `converged`.

    Cost: O((n + m)² P + iterations · (n + m)²) time, and O(n m) or O(block · (n + m)) memory.

    **Source:** J. Feydy et al., *Interpolating between Optimal Transport and MMD using Sinkhorn Divergences*,
    AISTATS 2019.
    """
    x, y = check_cloud("x", x), check_cloud("y", y)
    check_pair(("x", "y"), x, y)
    ott = {"cost_fn": cost_fn, "solver": solver, "tau_a": tau_a, "tau_b": tau_b}
    options = engine(x.dtype, epsilon, threshold, max_iterations, block, **ott)
    a = check_weights("x_weights", x_weights, x, options.is_balanced)
    b = check_weights("y_weights", y_weights, y, options.is_balanced)
    return _divergence(options, x, y, a, b, check_initial(initial, x, y))


@eqx.filter_jit
def _divergence(options: "Engine", x: Array, y: Array, a: Array, b: Array, initial: Potentials) -> Divergence:
    return options.divergence(x, y, a, b, initial)


def divergence_curve(
    clouds: Float[Array, "saves n dim"],
    reference: Float[Array, "m dim"],
    *,
    epsilon: Any,
    weights: Float[Array, "saves n"] | None = None,
    reference_weights: Float[Array, " m"] | None = None,
    threshold: ArrayLike = 1e-3,
    max_iterations: int = 2000,
    block: int | None = None,
    **ott: Any,
) -> Divergence:
    r"""\( S_\varepsilon(\alpha_k, \beta) \) of the clouds along a curve from a fixed reference.

    Each problem starts from the potentials of the one before. The reference's transport to itself is solved once.

    **Arguments:**

    - `clouds`: points `[saves, n, P]` in order, with `weights` `[saves, n]`.
    - `reference`: points `[m, P]`, with `reference_weights` `[m]`.
    - the others, and those of OTT, as in [`wgf.transport.sinkhorn_divergence`][].

    **Returns:** [`wgf.transport.Divergence`][] with a leading axis `[saves]` in all its parts but `ot.y_self`.

    **Raises:** `ValueError` as `sinkhorn_divergence` does.
    """
    clouds, reference = check_cloud("clouds", clouds, "[saves, n, P]"), check_cloud("reference", reference)
    check_pair(("clouds", "reference"), clouds, reference)
    options = engine(clouds.dtype, epsilon, threshold, max_iterations, block, **ott)
    a = check_weights("weights", weights, clouds, options.is_balanced)
    b = check_weights("reference_weights", reference_weights, reference, options.is_balanced)
    return _curve(options, clouds, reference, a, b, check_initial(None, clouds[0], reference))


@eqx.filter_jit
def _curve(
    options: "Engine", clouds: Array, reference: Array, weights: Array, reference_weights: Array, start: Potentials
) -> Divergence:
    other = options.alone(reference, reference_weights, start.y_self)

    def step(potentials, cloud):
        points, weights = cloud
        found = options.between(points, weights, other, potentials)
        # What is the same for all clouds is not copied for each.
        return found.potentials, eqx.tree_at(lambda found: found.ot, found, found.ot._replace(y_self=None))

    found = jax.lax.scan(step, start, (clouds, weights))[1]
    return eqx.tree_at(lambda found: found.ot, found, found.ot._replace(y_self=other.output))
