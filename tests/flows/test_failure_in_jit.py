"""A flow that fails inside a user's own `jit`: the error says why, and `throw=False` gives a code to branch on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import wgf
from wgf.flows import RESULTS

TAUS = np.array([0.0, 1.0, 8.0])
CAUSE = "The flow ran out of steps before the last of `taus`. Increase `max_steps` or `rtol`"


def bowl(x):
    return jnp.sum(x**4) / 4


def last(x, max_steps, **options):
    return wgf.flow(bowl, x, TAUS, max_steps=max_steps, **options).objective[-1]


@pytest.mark.parametrize(
    ("compile", "error"), [(jax.jit, jax.errors.JaxRuntimeError), (eqx.filter_jit, eqx.EquinoxRuntimeError)]
)
def test_the_error_names_cause_and_knob(compile, error):
    with pytest.raises(error) as caught:
        jax.block_until_ready(compile(lambda x: last(x, 2))(jnp.ones(2)))
    text = str(caught.value)
    # Before it stand the calls that lead there, as in every traceback; Equinox's advice on debugging may follow.
    assert text.count(CAUSE) == 1
    (line,) = (line for line in text.splitlines() if CAUSE in line)
    assert line.partition(": ")[0].endswith("EquinoxRuntimeError")
    assert "`stats` counts accepted and rejected steps." in line


def test_outside_of_jit_the_message_is_all():
    with pytest.raises(eqx.EquinoxRuntimeError) as caught:
        last(jnp.ones(2), 2)
    assert str(caught.value).startswith(CAUSE)
    assert "\n" not in str(caught.value)


@jax.jit
def branched(x):
    """The objective at the end of a flow, or −1 where it ran out of steps."""
    solution = wgf.flow(bowl, x, TAUS, max_steps=10, throw=False)
    failed = solution.result == RESULTS.stalled
    return jax.lax.cond(failed, lambda: -jnp.ones_like(x[0]), lambda: solution.objective[-1]), solution.result


def test_without_throw_a_program_branches_on_the_result():
    value, result = branched(jnp.full(2, 0.1))
    assert result == RESULTS.successful
    assert 0 < value < bowl(jnp.full(2, 0.1))
    value, result = branched(jnp.full(2, 30.0))
    assert value == -1
    assert RESULTS[result].startswith(CAUSE)


def test_so_does_each_of_a_batch():
    values, results = jax.vmap(branched)(jnp.array([[0.1, 0.1], [30.0, 30.0]]))
    np.testing.assert_array_equal(values == -1, [False, True])
    np.testing.assert_array_equal(results == RESULTS.stalled, [False, True])
