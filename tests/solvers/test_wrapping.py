"""Controllers that wrap another: what they forward."""

import diffrax
import jax.numpy as jnp

from wgf.solvers import CourantController


class Directed(diffrax.PIDController):
    """A controller that notes the direction of time."""

    direction: int = 0

    def wrap(self, direction):
        return Directed(self.rtol, self.atol, norm=self.norm, direction=direction)


def test_tolerances_and_norm_are_those_of_the_inner_controller():
    def norm(state):
        return jnp.max(state)

    outer = CourantController(diffrax.PIDController(1e-3, 1e-6, norm=norm))
    assert (outer.rtol, outer.atol, outer.norm) == (1e-3, 1e-6, norm)


def test_the_direction_of_time_reaches_the_inner_controller():
    wrapped = CourantController(Directed(1e-3, 1e-6), 0.5).wrap(-1)
    assert isinstance(wrapped, CourantController)
    assert isinstance(wrapped.inner, Directed)
    assert (wrapped.inner.direction, wrapped.aim) == (-1, 0.5)
