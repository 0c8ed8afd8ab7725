"""How data are described: arrays, containers, and objects by what pickle would keep of them."""

import copyreg
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..compat import Tracer
from ..host import on_host
from .release import release
from .walk import ATOMS, Rule, Walk, resolve, short


def describe_array(walk: Walk, path: str, value: Any) -> None:
    """An array by type, shape and a digest of its numbers."""
    if isinstance(value, Tracer):
        walk.refuse(path, "is known only where the program runs, under a transformation of JAX")
    weak = " weak" if getattr(value, "weak_type", False) else ""
    kind = f"{value.dtype}{list(value.shape)}{weak}"
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if value.dtype == object:
        walk.record(path, kind)
        walk.visit(f"{path}.flat", list(value.flat))
        return
    numbers = on_host(value) if isinstance(value, jax.Array) else np.asarray(value)
    walk.record(path, f"{kind} {hashlib.sha256(numbers.tobytes()).hexdigest()[:16]}")


def describe_sequence(walk: Walk, path: str, values: Sequence[Any]) -> None:
    """A list or tuple by its entries, in one line where these are numbers or texts."""
    if all(type(value) in ATOMS for value in values):
        walk.record(path, short(repr(values)))
        return
    walk.record(path, f"{type(values).__name__} of {len(values)}")
    for i, value in enumerate(values):
        walk.visit(f"{path}[{i}]", value)


def describe_named_tuple(walk: Walk, path: str, value: Any) -> None:
    """A named tuple by its fields."""
    walk.visit(f"{path}.__class__", type(value))
    walk.children(path, {**value._asdict(), **getattr(value, "__dict__", {})})


def describe_dict(walk: Walk, path: str, value: Mapping[Any, Any]) -> None:
    """A dictionary by its keys, in their order, and its values."""
    if not all(type(key) in ATOMS for key in value):
        walk.visit(f"{path}.keys", list(value.keys()))
        walk.visit(f"{path}.values", list(value.values()))
        return
    walk.record(path, f"dict of {short(repr(list(value)))}")
    for key, entry in value.items():
        walk.visit(f"{path}[{key!r}]", entry)


def describe_set(walk: Walk, path: str, value: Iterable[Any]) -> None:
    """A set by the descriptions of its entries, sorted: their own order differs from process to process."""
    entries = [repr(entry) if type(entry) in ATOMS else _alone(walk, path, entry) for entry in value]
    walk.record(path, f"set of {short(repr(sorted(entries)))}")


def describe_member(walk: Walk, path: str, value: Enum) -> None:
    """A member of an enumeration."""
    walk.record(path, str(value.name))
    walk.visit(f"{path}.__class__", type(value))
    walk.visit(f"{path}.value", value.value)


def describe_signature(walk: Walk, path: str, value: inspect.Signature) -> None:
    """A signature by names and defaults: annotations have no part in what a function does."""
    walk.record(path, short(" ".join(value.parameters)))
    walk.children(path, {name: parameter.default for name, parameter in value.parameters.items()})


def describe_weakly(walk: Walk, path: str, value: Callable[[], Any]) -> None:
    """A weak reference by what it refers to."""
    walk.record(path, "a weak reference")
    walk.visit(f"{path}.__call__", value())


def describe_structure(walk: Walk, path: str, value: Any) -> None:
    """The structure of a tree."""
    walk.visit(f"{path}.node", value.node_data())
    walk.visit(f"{path}.children", value.children())


def describe_through(*names: str) -> Rule:
    """The rule for objects that are their class and some attributes."""

    def describe(walk: Walk, path: str, value: Any) -> None:
        walk.visit(f"{path}.__class__", type(value))
        walk.children(path, {name: getattr(value, name) for name in names})

    return describe


def describe_object(walk: Walk, path: str, value: Any) -> None:
    """Any object by its class and by what pickle would keep of it."""
    cls, reduced = type(value), _reduced(walk, path, value)
    if isinstance(reduced, str):
        module = getattr(value, "__module__", None)
        if module is None or resolve(module, reduced) is not value:
            walk.refuse(path, f"is of type {_name(cls)}, which says nothing of its state")
        walk.record(path, f"{module}.{reduced}")
        return
    walk.visit(f"{path}.__class__", cls)
    padded: tuple[Any, ...] = (*reduced, None, None, None)
    make, arguments, state, entries, items = padded[:5]
    if make.__module__ != "copyreg":
        walk.visit(f"{path}.__reduce__", make)
    arguments = [argument for argument in arguments if argument is not cls]
    if arguments:
        walk.visit(f"{path}.__new__", arguments)
    if entries is not None:
        walk.visit(f"{path}.entries", list(entries))
    if items is not None:
        walk.visit(f"{path}.items", dict(items))
    _describe_state(walk, path, cls, state)
    if _pickles_itself(cls):
        _describe_state(walk, f"{path}.__dict__", cls, object.__getstate__(value))


def _describe_state(walk: Walk, path: str, cls: type, state: Any) -> None:
    slotted = isinstance(state, tuple) and len(state) == 2 and all(isinstance(part, dict | None) for part in state)
    if slotted:
        state = {name: value for part in state for name, value in (part or {}).items()}
    if isinstance(state, dict) and all(isinstance(name, str) for name in state):
        # A cached property follows from the rest, and is there only once it was asked for.
        cached = {name for name in state if isinstance(getattr(cls, name, None), functools.cached_property)}
        walk.children(path, {name: state[name] for name in state if name not in cached})
    elif state is not None:
        walk.visit(f"{path}.__getstate__", state)


def _pickles_itself(cls: type) -> bool:
    """Whether a class of the user's own says what pickle keeps: that may leave out what its numbers depend on."""
    is_own = any(release(base.__module__) is None for base in cls.__mro__)
    return is_own and any(
        getattr(cls, name) is not getattr(object, name) for name in ("__getstate__", "__reduce__", "__reduce_ex__")
    )


def _reduced(walk: Walk, path: str, value: Any) -> Any:
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        return value.__reduce_ex__(4) if reduce is None else reduce(value)
    # What cannot be pickled says so by an error of any type.
    except Exception:
        walk.refuse(path, f"is of type {_name(type(value))}, which says nothing of its state")


def _alone(walk: Walk, path: str, value: Any) -> str:
    """The description of an object on its own."""
    inner = Walk(walk.rule_of)
    inner.visit(path, value)
    walk.versions |= inner.versions
    return repr(inner.parts)


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
