"""Checks of arguments: static facts raise `ValueError`, traced facts go through `eqx.error_if`."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike


def is_traced(*arrays: Any) -> bool:
    """Whether any of the arrays is known only at run time (under `jit`, `vmap` or `grad`)."""
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


# Entries of an array that is brought home from an accelerator. With more of them that may take longer than to compile
# something there.
_SMALL = 2**20


def on_host(array: Any) -> Any:
    """An array in NumPy, where nothing is compiled for each shape; itself where its values are not at hand here.

    These are traced arrays, those spread over the devices of many processes, and large ones of an accelerator.
    """
    if is_traced(array) or isinstance(array, np.ndarray) or not array.is_fully_addressable:
        return array
    at_hand = array.size <= _SMALL or all(device.platform == "cpu" for device in array.devices())
    return np.asarray(array) if at_hand else array


def at_least(argument: str, value: int, minimum: int) -> int:
    """Return `value` as an int; raise `ValueError` unless it is a whole number >= `minimum`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        raise ValueError(f"`{argument}` must be a whole number of at least {minimum}; got {value!r}.")
    return int(value)


def not_negative(argument: str, value: ArrayLike) -> Array:
    """Return the scalar `value` as an array; raise unless it is finite and >= 0."""
    array = jnp.asarray(value, jnp.result_type(float))
    if array.shape != ():
        raise ValueError(f"`{argument}` must be one number; got an array of shape {array.shape}.")
    known = on_host(array)
    got = None if is_traced(array) else array.item()
    return holds(array, (known >= 0) & (known < np.inf), f"`{argument}` must be finite and not negative", got)


def finite(argument: str, value: ArrayLike | Sequence[Any]) -> Array:
    """Return `value` as an inexact array; raise if an entry is NaN or infinite."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        array = array.astype(jnp.result_type(float))
    # What is NaN is not below anything.
    bad = ~(abs(on_host(array)) < np.inf)
    # A large array that is known under `jit` has a traced check.
    got = None if is_traced(bad) else f"{int(bad.sum())} entries that are NaN or infinite"
    return holds(array, ~bad.any(), f"`{argument}` must be finite", got)


def numbered(argument: str, values: Any, count: int, kind: str) -> Array:
    """Return `values` as an array of integers; raise unless each is one of the `count` classes or symbols, from 0 on.

    JAX clips indices that are too large, and counts negative ones from the end.
    """
    values = values if isinstance(values, np.ndarray) else jnp.asarray(values)
    rule = f"`{argument}` must be {kind} 0 to {count - 1}"
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise ValueError(f"{rule}, as integers; got type {values.dtype}.")
    # Before the conversion to JAX's integers, which may have fewer bits.
    known = on_host(values)
    valid = ((known >= 0) & (known < count)).all()
    got = None if is_traced(valid) or bool(valid) else f"{known.min()} to {known.max()}"
    return holds(jnp.asarray(values), valid, rule, got)


def holds(value: Any, condition: Any, rule: str, got: Any = None) -> Any:
    """Return `value`; raise if `condition` is false: now where it is known, in the compiled run where not."""
    if is_traced(condition):
        return eqx.error_if(value, ~condition, f"{rule}.")
    if not bool(condition):
        raise ValueError(f"{rule}; got {got}.")
    return value
