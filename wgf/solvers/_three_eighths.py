"""Kutta's 3/8 rule: four stages at four different times, all of positive weight."""

from collections.abc import Callable
from typing import ClassVar

import diffrax
import numpy as np


class ThreeEighths(diffrax.AbstractERK):
    r"""Kutta's 3/8 rule, an explicit Runge–Kutta method of order 4 with stages at 0, 1/3, 2/3, 1.

    Its weights 1/8, 3/8, 3/8, 1/8 are positive and no two stages share a time, so each stage of a depth solve can have
    a sample of its own: see [`wgf.measures.Staged`][], where [`wgf.measures.EqualEighths`][] errs less for as many
    particles, and this rule has half the stages. As with every explicit method of four stages, order 4 and
    positive weights, gradients through it are of order 4 too (those of Bogacki–Shampine are of order 2). Made for
    constant steps; its error estimate, against a method of order 2 at the same stages and the end of the step, serves
    adaptive ones. Good values in depth: one step, for errors of the trained outputs of 1e-4 and 6e-4 of the labels' in
    the two problems of benchmarks/work_precision.py, which two steps make less than 3e-5.

    **Source:** W. Kutta, Z. Math. Phys. 46 (1901); W. W. Hager, *Runge–Kutta methods in optimal control and the
    transformed adjoint system*, Numer. Math. 87 (2000).
    """

    tableau: ClassVar[diffrax.ButcherTableau | diffrax.MultiButcherTableau] = diffrax.ButcherTableau(
        a_lower=(np.array([1 / 3]), np.array([-1 / 3, 1.0]), np.array([1.0, -1.0, 1.0]), np.array([1, 3, 3, 1]) / 8),
        b_sol=np.array([1 / 8, 3 / 8, 3 / 8, 1 / 8, 0.0]),
        # The embedded weights are (1, 3, 3, 0, 1)/8.
        b_error=np.array([0.0, 0.0, 0.0, 1 / 8, -1 / 8]),
        c=np.array([1 / 3, 2 / 3, 1.0, 1.0]),
    )
    interpolation_cls: ClassVar[Callable[..., diffrax.ThirdOrderHermitePolynomialInterpolation]] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation.from_k
    )

    def order(self, terms):
        """The order of convergence, 4."""
        return 4
