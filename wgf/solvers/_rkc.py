"""Runge–Kutta–Chebyshev: explicit steps that stay stable along a long negative real axis."""

from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float, PyTree

from .._backend.compat import ω
from .._checks import at_least

DAMPING = 2 / 13
MARGIN = 1.2  # on the spectral radius, which a power iteration underestimates
Field = Callable[[Any, PyTree[Array]], PyTree[Array]]


# The table of coefficients has the square of this size.
_MOST_STAGES = 1000


class RKC(diffrax.AbstractAdaptiveSolver):
    r"""The second-order Runge–Kutta–Chebyshev method, for long times and stiff flows.

    A step of s stages is stable for \( h\rho \le 0.65\,s^2 \), with ρ the spectral radius of the field's Jacobian. A
    step of Tsit5, with six stages, is stable for \( h\rho \le 3.5 \). The method needs a real spectrum: the Jacobian of
    a gradient flow has one, being symmetric in the flow's metric. Each step uses the smallest stable number of stages.
    A power iteration by differences of the field estimates ρ, and continues from step to step. No linear systems are
    solved.

    **Arguments:**

    - `max_stages`: the most stages of a step. A step that needs more is rejected. 200 are stable for hρ up to 21,000.

    Cost: s + 1 velocities per step, \( s \approx 1.4 \sqrt{h\rho} \). Order 2, with an error estimate of order 3.
    Forward mode differentiates it. Reverse mode does not, since the number of stages is data.

    Good values: rtol 1e-3 to 1e-5. To τ = 10⁴ a Transformer's flow took 13 times fewer velocities than with Tsit5 at
    rtol 1e-3, and 5 times fewer at 1e-5 (`benchmarks/verification.py`). For τ around 10, or rtol 1e-6, use
    `diffrax.Tsit5()`.

    **Raises:** `ValueError` if `max_stages` is below 2.

    **Source:** B. P. Sommeijer, L. F. Shampine, J. G. Verwer, *RKC: an explicit solver for parabolic PDEs*, J. Comput.
    Appl. Math. 88 (1998), section 2.
    """

    max_stages: int = eqx.field(static=True)
    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., diffrax.ThirdOrderHermitePolynomialInterpolation]] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation
    )

    def __init__(self, max_stages: int = 200):
        self.max_stages = at_least("max_stages", max_stages, 2, _MOST_STAGES)

    def order(self, terms):
        """Order 2."""
        return 2

    def error_order(self, terms):
        """The order of the local error estimate, 3."""
        return 3

    def init(self, terms, t0, t1, y0, args):
        """Evaluate the field, and its spectral radius by power iteration."""
        field = _field(terms, args)
        slope = field(t0, y0)
        return _State(slope, *spectral_radius(field, t0, y0, slope))

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step, with as many stages as stability needs."""
        field, h = _field(terms, args), t1 - t0
        start = jax.lax.cond(made_jump, lambda: field(t0, y0), lambda: solver_state.slope)
        row, too_long = self._choose(h * solver_state.radius)
        y1 = (y0**ω + _stages(field, t0, h, y0, start, row) ** ω).ω
        end = field(t1, y1)
        direction, radius = _power_iteration(field, t1, y1, end, solver_state.direction)
        error = (0.8 * (y0**ω - y1**ω) + 0.4 * h * (start**ω + end**ω)).ω
        error = jax.tree.map(lambda leaf: jnp.where(too_long, jnp.inf, leaf), error)
        dense = {"y0": y0, "y1": y1, "k0": (h * start**ω).ω, "k1": (h * end**ω).ω}
        return y1, error, dense, _State(end, direction, radius), diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args):
        """The vector field."""
        return terms.vf(t0, y0, args)

    def _choose(self, stiffness):
        """The coefficients for the smallest stable number of stages, and whether even `max_stages` are not enough."""
        ladder, rows = coefficients(self.max_stages)
        needed = jnp.sqrt(1 + 1.54 * MARGIN * stiffness)
        place = jnp.clip(jnp.searchsorted(jnp.asarray(ladder, needed.dtype), needed), 0, len(ladder) - 1)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[place], rows), needed > float(ladder[-1])


class _State(NamedTuple):
    """The field at the start of the step, the estimated leading eigenvector, and the spectral radius."""

    slope: PyTree[Array]
    direction: PyTree[Array]
    radius: Float[Array, ""]


class Row(NamedTuple):
    """The coefficients of a step of `stages` stages. Index j belongs to stage j; entries after the last are zero."""

    stages: np.ndarray
    node: np.ndarray
    last: np.ndarray
    before: np.ndarray
    slope: np.ndarray
    start: np.ndarray


def _field(terms: diffrax.AbstractTerm, args: PyTree) -> Field:
    return lambda t, y: terms.vf(t, y, args)


def _stages(field: Field, t0, h, y0: PyTree[Array], start: PyTree[Array], row: Row) -> PyTree[Array]:
    """The increment y1 − y0 by the three-term recurrence.

    In terms of the increments Z_j = Y_j − y0: rounding errors, which grow with the square of the number of stages, are
    then relative to the step and not to the state.
    """
    dtype = jax.tree.leaves(y0)[0].dtype
    row = jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, row)

    def stage(j, carry):
        before, last = carry
        slope = field(t0 + row.node[j - 1] * h, (y0**ω + last**ω).ω)
        increments = row.last[j] * last**ω + row.before[j] * before**ω
        return last, (increments + h * (row.slope[j] * slope**ω + row.start[j] * start**ω)).ω

    zero = jax.tree.map(jnp.zeros_like, y0)
    first = (h * row.slope[1] * start**ω).ω
    return jax.lax.fori_loop(2, row.stages + 1, stage, (zero, first))[1]


def spectral_radius(field: Field, t, y: PyTree[Array], slope: PyTree[Array]):
    """The leading eigenvector and the spectral radius of the field's Jacobian, to about 1 %."""
    # Many frequencies: a structured vector (the slope, ones) may be orthogonal to the leading eigenvector.
    blend = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype) ** 2).reshape(leaf.shape), y)
    blend = _moving(blend)
    direction, radius = _power_iteration(field, t, y, slope, (blend**ω / optx.two_norm(blend)).ω)

    def unsettled(carry):
        number, _, radius, before = carry
        return (number < 50) & (jnp.abs(radius - before) > 0.01 * radius)

    def again(carry):
        number, direction, before, _ = carry
        return number + 1, *_power_iteration(field, t, y, slope, direction), before

    _, direction, radius, _ = jax.lax.while_loop(unsettled, again, (1, direction, radius, jnp.zeros_like(radius)))
    return direction, radius


def _power_iteration(field: Field, t, y: PyTree[Array], slope: PyTree[Array], direction: PyTree[Array]):
    """One power iteration from a unit direction: the next, and the growth, by a difference of the field."""
    size = optx.two_norm(_moving(y))
    step = jnp.sqrt(jnp.finfo(size.dtype).eps) * jnp.where(size > 0, size, 1)
    change = _moving(((field(t, (y**ω + step * direction**ω).ω) ** ω - slope**ω) / step).ω)
    radius = optx.two_norm(change)
    # If the field does not vary along the direction, the direction stays.
    divisor = jnp.where(radius > 0, radius, 1)
    turned = jax.tree.map(lambda new, old: jnp.where(radius > 0, new / divisor, old), change, direction)
    return turned, radius


def _moving(y: PyTree[Array]) -> PyTree[Array]:
    """A state without its integrals, if it has any: they add no eigenvalue, but their size may hide the others."""
    return y.without_integrals() if hasattr(y, "without_integrals") else y


@cache
def coefficients(max_stages: int) -> tuple[np.ndarray, Row]:
    """The available numbers of stages, each about a fifth above the one before, and their stacked coefficients."""
    ladder = [2]
    while ladder[-1] < max_stages:
        ladder.append(min(max_stages, max(ladder[-1] + 1, ladder[-1] * 6 // 5)))
    rows = [_coefficients(stages, max_stages) for stages in ladder]
    return np.array(ladder), Row(*(np.stack(leaves) for leaves in zip(*rows, strict=True)))


def _coefficients(stages: int, size: int) -> Row:
    """Equations 2.1 to 2.4 of the source, from the Chebyshev polynomials T_j and their derivatives at w₀."""
    w0 = 1 + DAMPING / stages**2
    t, dt, ddt = np.zeros((3, size + 1))
    t[:2], dt[1] = (1, w0), 1
    for j in range(2, size + 1):
        t[j] = 2 * w0 * t[j - 1] - t[j - 2]
        dt[j] = 2 * t[j - 1] + 2 * w0 * dt[j - 1] - dt[j - 2]
        ddt[j] = 4 * dt[j - 1] + 2 * w0 * ddt[j - 1] - ddt[j - 2]
    w1 = dt[stages] / ddt[stages]
    b = np.empty(size + 1)
    b[2:] = ddt[2:] / dt[2:] ** 2
    b[:2] = b[2]
    a = 1 - b * t
    node, last, before, slope, start = np.zeros((5, size + 1))
    slope[1] = node[1] = b[1] * w1
    for j in range(2, stages + 1):
        last[j], before[j], slope[j] = 2 * b[j] * w0 / b[j - 1], -b[j] / b[j - 2], 2 * b[j] * w1 / b[j - 1]
        start[j] = -a[j - 1] * slope[j]
        node[j] = last[j] * node[j - 1] + before[j] * node[j - 2] + slope[j] + start[j]
    return Row(np.array(stages), node, last, before, slope, start)
