"""A point cloud of OTT whose Gibbs kernel is held in the gauge of potentials, or computed in blocks of rows."""

# OTT annotates arrays as numbers, and what is optional as if it were always None or never.
# pyright: reportArgumentType=false, reportReturnType=false

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float
from ott.geometry.pointcloud import PointCloud

from .._backend.precision import full_precision
from ._gibbs import Gibbs, in_rows, of_exponents, square_distances
from ._memory import by_platform

_Out = TypeVar("_Out")


@jax.tree_util.register_pytree_node_class
class GibbsPointCloud(PointCloud):
    r"""OTT's point cloud for the cost \( C_{ij} = \|x_i - y_j\|^2 \), exact to the digits of the points.

    `GibbsSinkhorn` multiplies by its kernel, which is computed once. Other solvers of OTT take it as any point cloud.

    - `x`, `y`: points `[n, P]` and `[m, P]`.
    - `epsilon`: ε, one number.
    - `batch_size`: the rows of a kernel that are held at once. Default: what the device has room for.
    """

    def on_device(self, compute: Callable[..., _Out], *args: Any) -> _Out:
        """`compute(geometry, *args)` with this geometry, whose rows at once are those of the program's device."""

        def with_rows(rows, *args):
            return compute(type(self)(self.x, self.y, self.cost_fn, rows, epsilon=self._epsilon_init), *args)

        return by_platform(with_rows, self.shape, self._batch_size, self.dtype.itemsize, *args)

    def kernel(self, f: Float[Array, " n"], g: Float[Array, " m"]) -> Gibbs:
        """The kernel in the gauge of potentials, of a geometry with a `batch_size`."""
        return Gibbs(self.x, self.y, f, g, self.epsilon, self._batch_size)

    @full_precision
    def apply_lse_kernel(
        self, f: Array, g: Array, eps: ArrayLike, vec: Array | None = None, axis: int = 0
    ) -> tuple[Array, Array]:
        r"""\( \varepsilon \log |\sum_i v_i e^{(f_i - C_{ij}) / \varepsilon}| \) and the sum's sign; axis 1: of g.

        It is accurate even where the kernel itself would leave the range of floating-point numbers.
        """
        (x, h), (y, _) = ((self.y, f), (self.x, g)) if axis == 0 else ((self.x, g), (self.y, f))

        def sums(geometry):
            rows = geometry._batch_size if axis == 1 else -(-geometry._batch_size * len(x) // len(y))

            def log_sums(z):
                return jax.nn.logsumexp(z, axis=1, b=None if vec is None else vec[None], return_sign=True)

            return in_rows(lambda x: of_exponents(log_sums, x, y, jnp.zeros_like(x[:, 0]), h, eps), x, rows)

        logs, signs = self.on_device(sums)
        return eps * logs, signs

    @property
    def _unscaled_cost_matrix(self) -> Float[Array, "n m"]:
        return square_distances(self.x, self.y)
