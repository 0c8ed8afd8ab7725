"""Step size controllers that remember the next step, which Diffrax drops at the end of a solve."""

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
    """Continue a solve with the step that the segment before chose, or begin a solve (`next_tau=None`).

    The `controller_state` is a pair: the inner controller's state, and the end of the next step.
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


# Diffrax decides by the class whether steps adapt: constant steps need a class of their own.
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
        # Diffrax has the controller's state already and uses only the end of the first step.
        return controller.next_tau, None
    next_tau, state = controller.inner.init(terms, t0, t1, y0, dt0, args, func, error_order)
    return next_tau, (state, jnp.minimum(next_tau, controller.end))


def _adapt(controller: Any, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state):
    """Adapt as the inner controller does, and keep the end of the next step as Diffrax will use it."""
    keep, next_t0, next_t1, jump, state, result = controller.inner.adapt_step_size(
        t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state[0]
    )
    next_t1 = _clip(jnp.minimum(next_t0, controller.end), next_t1, controller.end, keep)
    return keep, next_t0, next_t1, jump, (state, next_t1), result


def _clip(tau, next_tau, end, keep):
    """Extend the last step to the end of the solve, as Diffrax does within 100 floating-point numbers of it."""
    floor = jax.lax.fori_loop(0, 100, lambda _, x: prevbefore(x), end)
    return jnp.where(next_tau > floor, jnp.where(keep, end, tau + 0.5 * (end - tau)), next_tau)
