"""The entropic regularisation ε, chosen from the scale of the data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float

from .._checks import holds

_MOST_POINTS = 1024


@eqx.filter_jit
def epsilon_from_scale(cloud: Float[Array, "count dim"], fraction: float = 0.05) -> Float[Array, ""]:
    r"""The ε at which a point sees a given fraction of the others, mean of \( e^{-\|x_i - x_j\|^2 / \varepsilon} \)
    over i ≠ j.

    For a Gaussian cloud of variance s² in P dimensions that is \( \varepsilon = 4 s^2 / (f^{-2/P} - 1) \): 0.05 of
    the mean squared distance in 2 dimensions, where a small ε resolves shapes, but 0.3 of it in 55, where distances
    concentrate and a smaller ε would see sampling noise alone. Fix it once for all the clouds that are to be compared.

    **Arguments:**

    - `cloud`: points `[n, P]`, n ≥ 2; the first 1,024 are used.
    - `fraction`: f, between 0 and 1.

    **Returns:** ε in units of squared distance; 1 for a cloud of coinciding points.

    **Raises:** `ValueError` if there are fewer than two points or the fraction is not between 0 and 1.
    """
    cloud = cloud[:_MOST_POINTS]
    count = cloud.shape[0]
    if count < 2:
        raise ValueError(f"`cloud` must hold at least two points to have a scale; got {count}.")
    fraction = holds(fraction, 0 < fraction < 1, "`fraction` must lie between 0 and 1", fraction)
    squares = jnp.sum((cloud[:, None] - cloud[None]) ** 2, axis=-1)
    mean = jnp.sum(squares) / (count * (count - 1))
    # Coinciding points have no scale: any ratios with a root will do, the result is not used.
    ratios = jnp.where(mean > 0, squares / jnp.where(mean > 0, mean, 1), 1 - jnp.eye(count, dtype=cloud.dtype))

    def surplus(log_ratio, _):
        seen = jnp.sum(jnp.exp(-ratios / jnp.exp(log_ratio))) - count
        return seen / (count * (count - 1)) - fraction

    bracket = {"lower": jnp.log(jnp.asarray(1e-6, cloud.dtype)), "upper": jnp.log(jnp.asarray(1e3, cloud.dtype))}
    solver = optx.Bisection(rtol=1e-4, atol=1e-4)
    root = optx.root_find(surplus, solver, jnp.zeros((), cloud.dtype), options=bracket, throw=False)
    return jax.lax.stop_gradient(jnp.where(mean > 0, mean * jnp.exp(root.value), 1))
