"""The state of a Sinkhorn iteration: when it ends, and which errors it lists."""

import jax.numpy as jnp
import numpy as np
import pytest

from wgf.transport._state import State


@pytest.fixture
def state():
    return State(jnp.zeros(2), jnp.zeros(3), jnp.asarray(0.5), jnp.asarray(1), jnp.full(4, -1.0), jnp.asarray(True))


def test_it_is_unfinished_above_the_threshold_with_iterations_left(state):
    assert bool(state.unfinished(0.1, 2))
    assert not bool(state.unfinished(0.5, 2))
    assert not bool(state.unfinished(0.1, 1))


def test_an_iteration_lists_its_error(state):
    after = state.iterated(jnp.asarray(0.25))
    np.testing.assert_array_equal(after.errors, [-1, 0.25, -1, -1])
    assert (float(after.error), int(after.iterations)) == (0.25, 2)


def test_an_error_that_is_not_known_is_listed_as_infinite_and_the_last_is_kept(state):
    after = state.iterated(jnp.asarray(0.2), False)
    np.testing.assert_array_equal(after.errors, [-1, np.inf, -1, -1])
    assert (float(after.error), int(after.iterations)) == (0.5, 2)
