"""Checks of the options of all experiments. They touch no device, so processes can still join a cluster."""

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax.numpy as jnp

from .._checks import at_least, shown

# Beyond it, no model here stays finite and no flow ends.
_MOST = 1e6
_SEEDS = 2**32
"""The number of seeds. In float32 JAX drops the higher bits of a seed, so that large seeds would repeat small ones."""


def check_options(
    config: Any, *, least: Mapping[str, int] | None = None, zero: Collection[str] = (), distinct: Collection[str] = ()
) -> None:
    """Raise `ValueError` that names the first option whose numbers cannot be used.

    **Arguments:**

    - `config`: the config dataclass. Whole numbers must be at least 1, and all others positive, finite and at most 1e6.
    - `least`: other minima of whole numbers.
    - `zero`: the options that may also be zero.
    - `distinct`: the options whose numbers must differ.
    """
    check_seed(config.seed)
    for name, value in _options(config):
        for number in _numbers(value):
            if isinstance(number, int):
                at_least(name, number, (least or {}).get(name, 1))
            else:
                _check_float(name, number, name in zero)
        if name in distinct and len(set(value)) < len(value):
            raise ValueError(f"`{name}` must differ from each other; got {shown(value)}.")


def check_rtol(rtol: float, dtype: Any = None) -> None:
    """Raise `ValueError` unless a tolerance is positive, at most 1, and resolved by the numbers of a type."""
    if not rtol > 0:
        raise ValueError(f"`rtol` must be positive; got {rtol}.")
    if rtol > 1:
        raise ValueError(f"`rtol` must be at most 1, a share of the whole; got {rtol}.")
    info = jnp.finfo(jnp.result_type(float) if dtype is None else dtype)
    if rtol < info.eps:
        raise ValueError(
            f"`rtol` must be at least {float(info.eps):.1e}, the spacing of {info.dtype} numbers; got {rtol}. "
            "Raise it, or set JAX_ENABLE_X64=1 to compute in float64."
        )


def check_seed(seed: int) -> None:
    """Raise `ValueError` unless the seed is a whole number from 0 to 2³² − 1."""
    at_least("seed", seed, 0, _SEEDS - 1)


@contextmanager
def of_option(name: str) -> Iterator[None]:
    """Prefix errors with the option whose value they are about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from error


def _options(config: Any) -> Iterator[tuple[str, Any]]:
    """The names and values of all options but the seed and the tolerance, which have checks of their own."""
    names = (field.name for field in dataclasses.fields(config))
    return ((name, getattr(config, name)) for name in names if name not in ("seed", "rtol"))


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, tuple):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def _check_float(name: str, number: float, may_be_zero: bool) -> None:
    sign = "finite and not negative" if may_be_zero else "positive and finite"
    if not math.isfinite(number) or number < 0 or (number == 0 and not may_be_zero):
        raise ValueError(f"`{name}` must be {sign}; got {number}.")
    if number > _MOST:
        raise ValueError(f"`{name}` must be at most {_MOST:g}; got {number:g}.")
