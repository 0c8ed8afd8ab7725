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

    If Euler steps of Courant number at most 1 keep masses positive, so do such steps of a strong-stability-preserving
    Runge–Kutta method, e.g. `diffrax.Heun`. The state holds the integral of the Courant number per unit of
    time. Its growth over a step is the Courant number of that step, so control costs no evaluation of the field. A step
    of more than 1, or one that leaves a negative mass, is repeated with a shorter length; the next step aims at `aim`.

    **Arguments:**

    - `inner`: the controller that bounds the error, e.g. `diffrax.PIDController`.
    - `aim`: the Courant number to which long steps are shortened, in (0, 1].

    **Raises:** `ValueError` if `inner` is not an adaptive controller or `aim` is outside (0, 1].

    **Source:** S. Gottlieb, C.-W. Shu, E. Tadmor, *Strong stability-preserving high-order time discretization
    methods*, SIAM Review 43 (2001), sections 2 and 4.
    """

    inner: diffrax.AbstractAdaptiveStepSizeController
    aim: float = eqx.field(static=True)

    def __init__(self, inner: diffrax.AbstractAdaptiveStepSizeController, aim: float = 0.9):
        example = "an adaptive step size controller of Diffrax, e.g. diffrax.PIDController(1e-4, 1e-6)"
        self.inner = instance("inner", inner, diffrax.AbstractAdaptiveStepSizeController, example)
        # A Python number: under `jit` the value of a JAX array is unknown.
        if not isinstance(aim, Real) or not 0 < aim <= 1:
            raise ValueError(f"`aim` must be above 0 and at most 1; got {aim!r}.")
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
