"""Step size controllers that remember the step they chose next, which Diffrax forgets where a solve ends."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._backend.compat import prevbefore
from ...solvers._wrapping import AbstractWrappingController


def resumable(
    inner: diffrax.AbstractStepSizeController, next_tau: Float[Array, ""] | None, end: Float[Array, ""]
) -> diffrax.AbstractStepSizeController:
    """Continue a solve at the step that an earlier part of it chose, or begin one (None).

    The `controller_state` is a pair of the inner controller's and the next step's end.
    """
    if isinstance(inner, diffrax.AbstractAdaptiveStepSizeController):
        return _Adaptive(inner, next_tau, end)  # pyright: ignore[reportCallIssue]
    return _Constant(inner, next_tau, end)


class _Constant(diffrax.AbstractStepSizeController):
    inner: diffrax.AbstractStepSizeController
    next_tau: Float[Array, ""] | None
    end: Float[Array, ""]

    def wrap(self, direction: Any):
        return eqx.tree_at(lambda s: s.inner, self, self.inner.wrap(direction))

    def init(self, *args: Any, **kwargs: Any):
        return _init(self, *args, **kwargs)

    def adapt_step_size(self, *args: Any, **kwargs: Any):
        return _adapt(self, *args, **kwargs)


# Diffrax tells adaptive controllers by their class: constant steps must not seem to adapt.
class _Adaptive(AbstractWrappingController):
    inner: diffrax.AbstractAdaptiveStepSizeController
    next_tau: Float[Array, ""] | None
    end: Float[Array, ""]

    def init(self, *args: Any, **kwargs: Any):
        return _init(self, *args, **kwargs)

    def adapt_step_size(self, *args: Any, **kwargs: Any):
        return _adapt(self, *args, **kwargs)


def _init(controller: Any, terms, t0, t1, y0, dt0, args, func, error_order):
    if controller.next_tau is not None:
        # Given the controller's state, Diffrax asks for the first step's end alone.
        return controller.next_tau, None
    next_tau, state = controller.inner.init(terms, t0, t1, y0, dt0, args, func, error_order)
    return next_tau, (state, jnp.minimum(next_tau, controller.end))


def _adapt(controller: Any, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state):
    """Adapt as the inner controller does, and keep the step's end as Diffrax will use it."""
    keep, next_t0, next_t1, jump, state, result = controller.inner.adapt_step_size(
        t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state[0]
    )
    next_t1 = _clip(jnp.minimum(next_t0, controller.end), next_t1, controller.end, keep)
    return keep, next_t0, next_t1, jump, (state, next_t1), result


def _clip(tau, next_tau, end, keep):
    """Join the last step to the end of the solve as Diffrax does, from 100 numbers before it on."""
    floor = jax.lax.fori_loop(0, 100, lambda _, x: prevbefore(x), end)
    return jnp.where(next_tau > floor, jnp.where(keep, end, tau + 0.5 * (end - tau)), next_tau)
