"""Whether two objects compute the same: equal ones, copies, and functions of the same code."""

import dataclasses
import functools
from collections.abc import Mapping
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import jax
import numpy as np

from .compat import function_of_jit, is_traced


def same(first: Any, second: Any) -> bool:
    """Whether two objects, such as encoders, are equal, or copies of each other as `copy` and pickle make them.

    Arrays are compared by type, shape and numbers, traced ones by type and shape; modules by their fields; functions
    by their code, their defaults, their closures and the globals that they load. Objects that agree in all of these
    compute the same. Two functions that compute the same by different code count as different.
    """
    return _same(first, second, frozenset())


def _same(first: Any, second: Any, within: frozenset[tuple[int, int]]) -> bool:
    if first is second or (id(first), id(second)) in within:
        return True
    first, second = _unwrapped(first), _unwrapped(second)
    if type(first) is not type(second):
        return _is_array(first) and _is_array(second) and _equal(first, second)
    if _is_array(first):
        return _equal(first, second)
    parts = _parts(first), _parts(second)
    if parts[0] is None or parts[1] is None:
        return bool(first == second)
    within = within | {(id(first), id(second))}
    return parts[0].keys() == parts[1].keys() and all(
        _same(parts[0][name], parts[1][name], within) for name in parts[0]
    )


def _parts(value: Any) -> Mapping[Any, Any] | None:
    """What an object consists of; None for numbers, texts, and all else that is known by `==`."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    if isinstance(value, CodeType):
        # All but the name and the place of the text.
        names = ("co_code", "co_consts", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_argcount")
        return {name: getattr(value, name) for name in (*names, "co_kwonlyargcount", "co_flags", "co_exceptiontable")}
    if isinstance(value, FunctionType):
        return _parts_of_function(value)
    if isinstance(value, functools.partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    if isinstance(value, MethodType):
        return {"func": value.__func__, "self": value.__self__}
    # An object that is equal to itself alone consists of its attributes.
    by_identity = type(value).__eq__ is object.__eq__ and not isinstance(value, type | ModuleType)
    return vars(value) if by_identity and hasattr(value, "__dict__") else None


def _parts_of_function(function: FunctionType) -> dict[str, Any]:
    code = function.__code__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    loaded = {name: function.__globals__[name] for name in _names(code) if name in function.__globals__}
    return {
        "code": code,
        "defaults": (function.__defaults__, function.__kwdefaults__),
        "closure": {name: _content(cell) for name, cell in cells},
        "globals": loaded,
    }


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # Not bound yet.
        return None


def _names(code: CodeType) -> set[str]:
    """The names that a function and those within it look up."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _unwrapped(value: Any) -> Any:
    """The function that `jax.jit` was given."""
    return function_of_jit(value) if isinstance(value, _JITTED) else value


_JITTED = type(jax.jit(lambda: None))


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic)


def _equal(first: Any, second: Any) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return is_traced(first, second) or bool(np.array_equal(first, second))
