"""Checks of values: by the host where it knows them, in the compiled run where not."""

from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FLOATS, programs

from wgf import _checks


def test_a_check_of_known_values_compiles_nothing():
    array = jnp.arange(35.0).reshape(5, 7)
    with programs() as compiled:
        _checks.finite("tokens", array)
    assert compiled == []


@pytest.mark.parametrize("dtype", [*FLOATS, jnp.bfloat16])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_entries_that_are_not_finite_are_counted(dtype, bad):
    with pytest.raises(ValueError, match="`tokens` must be finite; got 2 entries that are NaN or infinite"):
        _checks.finite("tokens", jnp.array([bad, 0.0, bad], dtype))


def test_what_is_known_under_jit_is_checked_as_it_is_traced():
    bad = jnp.array([jnp.nan])
    with pytest.raises(ValueError, match="`tokens` must be finite; got 1 entries"):
        jax.eval_shape(lambda: _checks.finite("tokens", bad))


@pytest.mark.parametrize("size", [3, _checks._SMALL + 1])
def test_a_traced_array_is_checked_in_the_run(size):
    check = eqx.filter_jit(lambda x: _checks.finite("tokens", x))
    np.testing.assert_array_equal(check(jnp.ones(size)), 1)
    with pytest.raises(eqx.EquinoxRuntimeError, match="`tokens` must be finite"):
        check(jnp.full(size, jnp.inf))


class Accelerated:
    """What is asked of an array on an accelerator."""

    is_fully_addressable = True

    def __init__(self, size):
        self.size = size

    def devices(self):
        return [SimpleNamespace(platform="gpu")]

    def __array__(self, dtype=None, copy=None):
        return np.zeros(self.size, dtype)


def test_a_large_array_stays_on_an_accelerator():
    large = Accelerated(_checks._SMALL + 1)
    assert _checks.on_host(large) is large
    assert isinstance(_checks.on_host(Accelerated(_checks._SMALL)), np.ndarray)
    large = jnp.zeros(_checks._SMALL + 1)
    assert isinstance(_checks.on_host(large), np.ndarray)
    with pytest.raises(ValueError, match="`tokens` must be finite; got 1 entries"):
        _checks.finite("tokens", large.at[7].set(jnp.nan))


def test_an_array_of_many_processes_stays_on_their_devices():
    array = SimpleNamespace(size=1, is_fully_addressable=False)
    assert _checks.on_host(array) is array
