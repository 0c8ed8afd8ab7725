"""Step size control by the Courant number, for flows of masses on a grid."""

from numbers import Real

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._checks import instance
from ._wrapping import AbstractWrappingController


class CourantController(AbstractWrappingController):
    r"""Keep the Courant number of a step below 1, and masses positive, on top of another adaptive controller.

    Where every Euler step of Courant number at most 1 keeps masses positive, so does a step of a strong-stability-
    preserving Runge–Kutta method like `diffrax.Heun`. The state carries the integral of the Courant numbers a unit of
    time; what it grows by over a step is that step's Courant number, so control costs no evaluation of the field.
    A step beyond 1, or one that leaves a mass below zero, is repeated at a shorter length; the next aims at `aim`.

    **Arguments:**

    - `inner`: the controller that bounds the error, e.g. `diffrax.PIDController`.
    - `aim`: the Courant number that long steps are cut to, between 0 and 1.

    **Raises:** `ValueError` if `inner` is no adaptive controller or `aim` lies elsewhere.

    **Source:** S. Gottlieb, C.-W. Shu, E. Tadmor, *Strong stability-preserving high-order time discretization
    methods*, SIAM Review 43 (2001), sections 2 and 4.
    """

    inner: diffrax.AbstractAdaptiveStepSizeController
    aim: float = eqx.field(static=True)

    def __init__(self, inner: diffrax.AbstractAdaptiveStepSizeController, aim: float = 0.9):
        example = "an adaptive step size controller of Diffrax, e.g. diffrax.PIDController(1e-4, 1e-6)"
        self.inner = instance("inner", inner, diffrax.AbstractAdaptiveStepSizeController, example)
        # In Python's numbers: the controller may be made under `jit`, where those of JAX are unknown.
        if not isinstance(aim, Real) or not 0 < aim <= 1:
            raise ValueError(f"`aim` must lie above 0 and be at most 1; got {aim!r}.")
        self.aim = float(aim)

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        """Begin as the inner controller does."""
        return self.inner.init(terms, t0, t1, y0, dt0, args, func, error_order)

    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state):
        """Accept what the inner controller accepts and the Courant condition allows."""
        keep, next_t0, next_t1, jump, state, result = self.inner.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
        )
        number = y1_candidate.courant - y0.courant
        allowed = (number <= 1) & _positive(y1_candidate.parameters)
        longest = (t1 - t0) * jnp.where(number > 0, self.aim / number, jnp.inf)
        step = jnp.minimum(next_t1 - next_t0, jnp.where(allowed, longest, jnp.minimum(longest, (t1 - t0) / 2)))
        next_t0 = jnp.where(allowed, next_t0, t0)
        return keep & allowed, next_t0, next_t0 + step, jump, state, result


def _positive(masses: list[Float[Array, "..."]]) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(leaf >= 0) for leaf in masses]))
