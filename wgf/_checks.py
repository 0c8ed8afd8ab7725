"""Checks of arguments: known values raise `ValueError`, traced values go through `eqx.error_if`."""

import functools
import math
import operator
import os
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PRNGKeyArray, PyTree

from ._backend.compat import is_traced

_T = TypeVar("_T")
ENCODER = "an encoder, e.g. wgf.encoders.Perceptron(4)"
# In shorter types, rounding makes solver steps, tolerances and masses meaningless.
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
# The greatest size of one axis. In 32 bits JAX cannot count further.
_MOST = 2**31 - 1
# The most characters of a value in an error message.
_LINE = 80
# The most bytes of one array. More cannot be meant on any device of today.
_MOST_BYTES = 2**40

# The most entries of an array that is copied from an accelerator to the host. A larger copy may take longer than
# compiling a check on the accelerator.
_SMALL = 2**20


def on_host(array: Any) -> Any:
    """Return the array in NumPy, where nothing is compiled per shape, or unchanged if its values are not available.

    Values are not available for traced arrays, arrays on the devices of several processes, and large arrays on an
    accelerator.
    """
    if is_traced(array) or isinstance(array, np.ndarray) or not array.is_fully_addressable:
        return array
    at_hand = array.size <= _SMALL or all(device.platform == "cpu" for device in array.devices())
    return np.asarray(array) if at_hand else array


class _Short(reprlib.Repr):
    """Texts of plain values with the middle left out, and no text of other values that have a long one."""

    def __init__(self):
        super().__init__()
        self.maxlist = self.maxtuple = self.maxset = self.maxdict = 8
        self.maxlevel, self.maxstring, self.maxlong = 2, 60, 40

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print thousands of digits.
        return super().repr_int(x, level) if x.bit_length() < 1000 else f"about 10^{x.bit_length() * 3 // 10}"

    def repr_instance(self, x: Any, level: int) -> str:
        text = repr(x)
        return text if len(text) <= _LINE and "\n" not in text else f"an object of type {type(x).__name__}"


_SHORT = _Short()


def shown(value: Any) -> str:
    """The text of a value in an error message: its `repr` if that is short, else what can be said on one line."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, jax.Array | np.ndarray) and (value.size > 8 or "\n" in repr(value)):
        return f"an array of shape {value.shape} and type {value.dtype}"
    return _SHORT.repr(value)


def at_least(argument: str, value: int, minimum: int, maximum: int = _MOST) -> int:
    """Return `value` as an `int`; raise `ValueError` unless it is a whole number from `minimum` to `maximum`.

    Use the returned value: under `jit` a NumPy integer becomes an array whose value is unknown.
    """
    try:
        # `True` is not a size.
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum:
        raise ValueError(f"`{argument}` must be a whole number of at least {minimum}; got {shown(value)}.")
    if number > maximum:
        raise ValueError(f"`{argument}` must be a whole number of at most {maximum}; got {shown(value)}.")
    return number


def check_memory(*, each: int = 1, **sizes: int) -> None:
    """Raise `ValueError` that names the `sizes` if an array of them, of `each` numbers per entry, cannot be held.

    JAX would end the process where it allocates the array, without a word about its arguments.
    """
    taken = each * math.prod(sizes.values()) * jnp.dtype(jnp.result_type(float)).itemsize
    if taken <= (most := _most_bytes()):
        return
    got = " × ".join(map(str, sizes.values())) + (f" × {each}" if each > 1 else "")
    raise ValueError(
        f"{in_words(sizes)} must give arrays of at most {most / 2**30:.4g} GiB, a quarter of the memory; got {got} "
        f"numbers, {taken / 2**30:.4g} GiB. Lower `{max(sizes, key=lambda name: sizes[name])}`."
    )


@functools.cache
def _most_bytes() -> int:
    """The most bytes of one array: a quarter of this machine's memory if it computes on its CPU, at most 1 TiB.

    A quarter, because what draws or moves an array holds copies of it.
    """
    known = jax.local_devices()[0].platform == "cpu" and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ())
    return min(_MOST_BYTES, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4) if known else _MOST_BYTES


def expanded(argument: str, path: str | os.PathLike) -> Path:
    """The path with a leading `~` replaced by the home directory.

    **Raises:** `ValueError` naming the argument if it is no path, or there is no such home directory.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"`{argument}` must be a path; got {shown(path)}.")
    if "\0" in str(path):
        raise ValueError(f"`{argument}` must be a path without zero bytes; got {shown(str(path))}.")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"`{argument}` must begin with the home directory of a user; got {path}.") from error


def in_words(arguments: Iterable[str]) -> str:
    """The names of arguments in a sentence."""
    *others, last = (f"`{argument}`" for argument in arguments)
    return f"{', '.join(others)} and {last}" if others else last


def flag(argument: str, value: bool) -> bool:
    """Return `value` as a `bool`; raise `ValueError` unless it is True or False: `"no"` would count as true."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{argument}` must be True or False; got {shown(value)}.")
    return bool(value)


def choice(argument: str, value: Any, options: Iterable[str]) -> Any:
    """Return `value`; raise `ValueError` unless it is one of the `options`."""
    if not (isinstance(value, str) and value in options):
        raise ValueError(f"`{argument}` must be one of {tuple(options)}; got {shown(value)}.")
    return value


def instance(argument: str, value: Any, kind: type[_T], example: str) -> _T:
    """Return `value`; raise `ValueError` unless it is an instance of `kind`, such as `example`."""
    if isinstance(value, kind):
        return value
    call = f" Call the class: {value.__name__}(...)." if isinstance(value, type) and issubclass(value, kind) else ""
    raise ValueError(f"`{argument}` must be {example}; got {shown(value)}.{call}")


def random_key(argument: str, key: Any) -> PRNGKeyArray:
    """Return one typed random key; raise `ValueError` unless `key` is one, typed or raw."""
    fix = "Pass jax.random.key(0), or one of the keys of jax.random.split."
    if not isinstance(key, (jax.Array, np.ndarray)):
        raise ValueError(f"`{argument}` must be a JAX random key; got {shown(key)}. {fix}")
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed and (key.dtype != np.uint32 or key.ndim == 0):
        raise ValueError(f"`{argument}` must be a JAX random key; got {key.dtype} of shape {key.shape}. {fix}")
    shape = key.shape if typed else key.shape[:-1]
    if shape != ():
        raise ValueError(f"`{argument}` must be one random key; got an array of keys of shape {shape}. {fix}")
    return jnp.asarray(key) if typed else jax.random.wrap_key_data(jnp.asarray(key))


def numbers(argument: str, value: Any) -> Array:
    """Return `value` as an array; raise `ValueError` unless its entries are real numbers."""
    try:
        array = None if isinstance(value, str | bytes) else jnp.asarray(value)
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None or not (jnp.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise ValueError(f"`{argument}` must be a number or an array of numbers; got {shown(value)}.")
    if jnp.issubdtype(array.dtype, np.complexfloating):
        raise ValueError(f"`{argument}` must be real; got {array.dtype}. Pass its real part, `.real`.")
    return array


def one_number(argument: str, value: Any) -> float:
    """Return a known number as a `float`; raise `ValueError` for arrays, complex numbers and anything else."""
    if is_traced(value) or numbers(argument, value).shape != ():
        raise ValueError(f"`{argument}` must be one number that is known, not traced; got {shown(value)}.")
    return float(value)


def on_host_in_float64(argument: str, value: Any) -> np.ndarray:
    """Return `value` as a NumPy array of float64; raise `ValueError` unless its entries are real numbers."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{argument}` must be an array of numbers; got {shown(value)}.") from error
    if array.dtype.kind not in "biuf":
        kind = "complex numbers" if array.dtype.kind == "c" else shown(value)
        raise ValueError(f"`{argument}` must be an array of real numbers; got {kind}.")
    return array.astype(np.float64)


def not_negative(argument: str, value: ArrayLike) -> Array:
    """Return the scalar `value` as an array; raise unless it is finite and >= 0."""
    array = numbers(argument, value).astype(jnp.result_type(float))
    if array.shape != ():
        raise ValueError(f"`{argument}` must be one number; got an array of shape {array.shape}.")
    known = on_host(array)
    got = None if is_traced(array) else array.item()
    return holds(array, (known >= 0) & (known < np.inf), f"`{argument}` must be finite and not negative", got)


def positive(argument: str, value: ArrayLike) -> Array:
    """Return the scalar `value` as an inexact array; raise unless it is finite and > 0."""
    array = finite(argument, value)
    if array.shape != ():
        raise ValueError(f"`{argument}` must be one number; got an array of shape {array.shape}.")
    got = None if is_traced(array) else array.item()
    return holds(array, on_host(array) > 0, f"`{argument}` must be positive", got)


def finite(argument: str, value: ArrayLike | Sequence[Any]) -> Array:
    """Return `value` as an inexact array; raise if an entry is not a real number, or is NaN or infinite."""
    array = numbers(argument, value)
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        array = array.astype(jnp.result_type(float))
    # Negated, because NaN is not below anything.
    bad = ~(abs(on_host(array)) < np.inf)
    # Under `jit`, the check of a large constant array is traced too.
    got = None if is_traced(bad) else f"{int(bad.sum())} entries that are NaN or infinite"
    return holds(array, ~bad.any(), f"`{argument}` must be finite", got)


def numbered(argument: str, values: Any, count: int, kind: str) -> Array:
    """Return `values` as an integer array; raise unless each is one of the `count` classes or symbols, from 0 on.

    Without this check, JAX would clip indices that are too large, and count negative ones from the end.
    """
    values = values if isinstance(values, np.ndarray) else numbers(argument, values)
    rule = f"`{argument}` must be {kind} 0 to {count - 1}"
    if values.size == 0:
        raise ValueError(f"{rule}; got none.")
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise ValueError(f"{rule}, as integers; got type {values.dtype}.")
    # Checked before the conversion to JAX's integers, which may have fewer bits.
    known = on_host(values)
    valid = ((known >= 0) & (known < count)).all()
    got = None if is_traced(valid) or bool(valid) else f"{known.min()} to {known.max()}"
    return holds(jnp.asarray(values), valid, rule, got)


def floats(argument: str, value: ArrayLike | Sequence[Any]) -> Array:
    """Return `value` as a finite array of float32 or float64, converting integers; raise for any other type."""
    array = finite(argument, value)
    check_float(argument, array.dtype)
    return array


def check_float(argument: str, dtype: Any) -> None:
    """Raise `ValueError` unless the type is float32 or float64."""
    if dtype in FLOATS:
        return
    advice = "Pass `.astype(jnp.float32)`."
    if jnp.issubdtype(dtype, np.floating):
        advice += (
            " In shorter types, rounding swallows the solvers' steps. For faster products set "
            '`jax.default_matmul_precision("bfloat16")`.'
        )
    raise ValueError(f"`{argument}` must be of type float32 or float64; got {dtype}. {advice}")


def check_types(tokens: Array, particles: PyTree[Array], weights: Array) -> None:
    """Raise `ValueError` unless tokens, particles and weights are all float32, or all float64."""
    check_float("tokens", tokens.dtype)
    for argument, leaf in [("particles", leaf) for leaf in jax.tree.leaves(particles)] + [("weights", weights)]:
        check_float(argument, leaf.dtype)
        if leaf.dtype != tokens.dtype:
            raise ValueError(
                f"`{argument}` must have the type of `tokens`, {tokens.dtype}; got {leaf.dtype}. Cast the prompts, "
                f"`tokens.astype(jnp.{leaf.dtype})`, or the model, `jax.tree.map(lambda x: "
                f"x.astype(jnp.{tokens.dtype}) if eqx.is_inexact_array(x) else x, model)`."
            )


def holds(value: Any, condition: Any, rule: str, got: Any = None) -> Any:
    """Return `value`; raise if `condition` is false: now if it is known, at run time if it is traced."""
    if is_traced(condition):
        return eqx.error_if(value, ~condition, f"{rule}.")
    if not bool(condition):
        raise ValueError(f"{rule}; got {got if isinstance(got, str) else shown(got)}.")
    return value
