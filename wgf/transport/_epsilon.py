"""The entropic regularisation ε, chosen from the scale of the data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float

from .._backend.compat import is_traced
from .._checks import one_number
from ._inputs import as_array, check_cloud

_MOST_POINTS = 1024


def epsilon_from_scale(cloud: Float[Array, "count dim"], fraction: float | Array = 0.05) -> Float[Array, ""]:
    r"""The ε at which a point sees a given fraction f of the others: f is the mean of
    \( e^{-\|x_i - x_j\|^2 / \varepsilon} \) over the pairs of points that do not coincide.

    For a Gaussian cloud of variance s² in P dimensions, \( \varepsilon = 4 s^2 / (f^{-2/P} - 1) \). In 2 dimensions
    this is 0.05 of the mean squared distance, because a small ε resolves shapes. In 55 dimensions it is 0.3 of it,
    because distances concentrate and a smaller ε would only see sampling noise. Use one ε for all clouds that are
    compared. It is that of the cost ‖x − y‖², not of its half: GeomLoss's `blur` is \( \sqrt{\varepsilon / 2} \).

    **Arguments:**

    - `cloud`: points `[n, P]`, n ≥ 2; the first 1,024 are used.
    - `fraction`: f, between 0 and 1.

    **Returns:** ε in units of squared distance. It is 1 for a cloud of coinciding points, and NaN for traced points or
    a traced fraction (under `jit`) that are not valid.

    **Raises:** `ValueError` if there are fewer than two points, they are not finite, or the fraction is not between 0
    and 1.
    """
    cloud = check_cloud("cloud", cloud)
    if len(cloud) < 2:
        raise ValueError(f"`cloud` must hold at least two points to have a scale; got {len(cloud)}.")
    if not is_traced(fraction) and not 0 < one_number("fraction", fraction) < 1:
        raise ValueError(f"`fraction` must lie between 0 and 1; got {fraction}.")
    return _epsilon(cloud, as_array(fraction).astype(cloud.dtype))


@eqx.filter_jit
def _epsilon(cloud: Array, fraction: Array) -> Float[Array, ""]:
    cloud = cloud[:_MOST_POINTS]
    # Scaled by a power of two near its extent, which is exact and keeps squares within the range of numbers.
    extent = jnp.max(jnp.abs(cloud - cloud[:1]))
    _, exponent = jnp.frexp(extent)
    cloud = jnp.ldexp(cloud, -exponent)
    squares = jnp.sum((cloud[:, None] - cloud[None, :]) ** 2, axis=-1)
    apart = squares > 0
    # If all pairs had the least or the greatest distance, ε would be exp(log_alike) times its square.
    log_alike = -jnp.log(-jnp.log(fraction))
    nearest, farthest = jnp.min(squares, where=apart, initial=jnp.inf), jnp.max(squares)
    has_scale = (extent > 0) & jnp.isfinite(extent) & jnp.isfinite(log_alike)

    # At most 2²⁰ pairs, a number that float32 holds exactly.
    pairs = jnp.maximum(jnp.sum(apart, dtype=squares.dtype), 1)

    def surplus(log_epsilon, _):
        seen = jnp.sum(jnp.exp(-squares / jnp.exp(log_epsilon)), where=apart)
        return jnp.where(has_scale, seen / pairs - fraction, 0)

    ends = {"lower": jnp.log(nearest) + log_alike - 1, "upper": jnp.log(farthest) + log_alike + 1}
    ends = jax.tree.map(lambda end: jnp.where(has_scale, end, 0), ends)
    solver = optx.Bisection(rtol=1e-4, atol=1e-4, flip=False)
    root = optx.root_find(surplus, solver, ends["lower"], options=ends, throw=False)
    found = jnp.where(has_scale, jnp.ldexp(jnp.exp(root.value), 2 * exponent), jnp.nan)
    return jax.lax.stop_gradient(jnp.where((extent == 0) & jnp.isfinite(log_alike), 1, found))
