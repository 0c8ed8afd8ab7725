"""A Runge–Kutta method of order 4 whose eight stages weigh the same: independent samples there err the least."""

from collections.abc import Callable
from typing import ClassVar

import diffrax
import numpy as np

_ROWS = (
    np.array([16]),
    np.array([8, 12]),
    np.array([7, 9, 12]),
    np.array([6, 6, 8, 12]),
    np.array([6, 6, 8, 8, 12]),
    np.array([6, 5, 6, 6, 9, 12]),
    np.array([11, 6, 6, 6, 7, 8, 16]),
)
_EIGHTHS = np.full(8, 1 / 8)


class EqualEighths(diffrax.AbstractERK):
    r"""Order 4 in eight explicit stages that weigh the same, at depths k/15 for k = 0, 4, 5, 7, 8, 10, 11, 15.

    Made for [`wgf.measures.Staged`][]: the mean over n independent particles dealt out to the stages has the variance
    \( \sum_i b_i^2 / (n/8) = 1/n \) of one sample of n, which no other weights reach; for Kutta's 3/8 rule it is 5/4 of
    that. The times are pairs u, 1 − u with \( \sum_i c_i^k = 8/(k + 1) \) for k = 1, 2, 3: Chebyshev's quadrature of
    equal weights, with one node at 0.

    The \( a_{ij} \) are multiples of 1/60 next to the least in norm that have order 4 and the symmetry
    \( a_{ij} = a_{9-j,\,9-i} \), by which the costates of a solve that is differentiated follow the same method
    backward in depth, with stages at the same times. So gradients are of order 4 too, and the field at each particle is
    that of its own depth. Its error estimate, against a method of order 2 at the same stages and the end of the step,
    serves adaptive steps. Good values in depth: one step, for errors of the trained outputs of 4e-5 to
    1e-4 of the labels' in the three problems of benchmarks/work_precision.py.

    **Source:** the order conditions of J. C. Butcher, *Numerical methods for ordinary differential equations* (2016),
    section 31; for costates W. W. Hager, *Runge–Kutta methods in optimal control and the transformed adjoint system*,
    Numer. Math. 87 (2000).
    """

    tableau: ClassVar[diffrax.ButcherTableau | diffrax.MultiButcherTableau] = diffrax.ButcherTableau(
        a_lower=(*(row / 60 for row in _ROWS), _EIGHTHS),
        b_sol=np.append(_EIGHTHS, 0.0),
        # The embedded weights are those above, with the end of the step in the place of the last stage.
        b_error=np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1 / 8, -1 / 8]),
        c=np.array([4, 5, 7, 8, 10, 11, 15, 15]) / 15,
    )
    interpolation_cls: ClassVar[Callable[..., diffrax.ThirdOrderHermitePolynomialInterpolation]] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation.from_k
    )

    def order(self, terms):
        """The order of convergence, 4."""
        return 4
