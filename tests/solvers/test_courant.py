"""Step size control by the Courant number: what it keeps, what it repeats, and how long the next step is."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers import bound

from wgf.solvers import CourantController


class Masses(eqx.Module):
    """What the controller reads of a flow's state: masses, and the integral of the Courant number."""

    parameters: list[jax.Array]
    courant: jax.Array


def largest(state):
    return jnp.max(jnp.abs(state.parameters[0]))


def step(number, masses=(0.5, 0.5), error=0.0, aim=0.9):
    """A step from 2 to 3 of this Courant number: whether it is kept, where the next begins and how long it is."""
    controller = CourantController(diffrax.PIDController(0.0, 1e-3, norm=largest), aim)
    before = Masses([jnp.array([0.5, 0.5])], jnp.asarray(7.0))
    after = Masses([jnp.asarray(masses)], before.courant + number)
    y_error = Masses([jnp.array([error, 0.0])], jnp.asarray(0.0))
    t0, t1 = jnp.asarray(2.0), jnp.asarray(3.0)
    end, state = controller.init(None, t0, t0 + 10, before, jnp.asarray(1.0), None, None, 2)
    assert end == t1
    keep, begin, end, *_ = controller.adapt_step_size(t0, t1, before, after, None, y_error, 2, state)
    return bool(keep), float(begin), pytest.approx(float(end - begin), rel=bound(1e-12, 1e-5))


def test_a_step_within_the_condition_is_kept_and_the_next_aims_at_its_number():
    assert step(0.3) == (True, 3.0, 0.9 / 0.3)
    assert step(0.3, aim=0.5) == (True, 3.0, 0.5 / 0.3)


def test_where_masses_move_slowly_the_inner_controller_sets_the_step():
    inner_most = 10.0  # PIDController's greatest factor
    assert step(0.01) == (True, 3.0, inner_most)
    assert step(0.0) == (True, 3.0, inner_most)


def test_a_step_beyond_the_condition_is_repeated_at_half_its_length_or_less():
    assert step(1.2) == (False, 2.0, 0.5)
    assert step(4.0) == (False, 2.0, 0.9 / 4)


def test_a_step_that_leaves_a_negative_mass_is_repeated():
    assert step(0.5, masses=(1.001, -0.001)) == (False, 2.0, 0.5)


def test_a_step_whose_error_is_too_large_is_repeated():
    keep, begin, _ = step(0.3, error=1.0)
    assert (keep, begin) == (False, 2.0)


@pytest.mark.parametrize("aim", [0, 1.5, -0.1, "0.5"])
def test_an_aim_outside_its_range_is_refused(aim, unchecked):
    with pytest.raises(ValueError, match=f"`aim` must be above 0 and at most 1; got {aim!r}"):
        CourantController(diffrax.PIDController(1e-3, 1e-3), aim)


def test_a_controller_of_constant_steps_is_refused(unchecked):
    with pytest.raises(ValueError, match="`inner` must be an adaptive step size controller of Diffrax"):
        CourantController(diffrax.ConstantStepSize())
