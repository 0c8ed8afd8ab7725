"""The fingerprint of a problem: all that its numbers depend on, part by part."""

import dataclasses
import enum
import functools
import inspect
import types
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from .data import (
    describe_array,
    describe_dict,
    describe_member,
    describe_named_tuple,
    describe_object,
    describe_sequence,
    describe_set,
    describe_signature,
    describe_structure,
    describe_through,
    describe_weakly,
)
from .functions import (
    describe_builtin,
    describe_cell,
    describe_class,
    describe_function,
    describe_jitted,
    describe_module,
)
from .walk import Rule, Walk


class Fingerprint(NamedTuple):
    """What a problem is.

    - `parts`: a description of each part by its path. An array has its type, shape and digest; a number is itself; a
      function of the user's own has a digest of its code, and as further parts what it closes over, its defaults and
      the globals that it loads; an object has its class and its attributes; a class its bases and attributes.
      Functions and classes of installed packages have their name.
    - `versions`: the releases of these packages, and of Python where code is among the parts.
    """

    parts: dict[str, str]
    versions: dict[str, str]


def fingerprint(fields: Mapping[str, Any]) -> Fingerprint:
    """Describe named objects. Equal fingerprints mean equal problems, wherever the text of their functions stands.

    What a function reads from files, or looks up by a name that it computes, is not seen.

    **Raises:** `ValueError` that names the part, if one cannot be described: a generator, a lock, an open file.

    Cost: a digest of each array, in the time that it takes to read it.
    """
    walk = Walk(_rule)
    for name, value in fields.items():
        walk.visit(name, value)
    return Fingerprint(walk.parts, walk.versions)


def _rule(value: Any) -> Rule:
    """How to describe an object; `describe_object` is for any."""
    if type(value) in _EXACT:
        return _EXACT[type(value)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return describe_named_tuple
    return next((rule for family, rule in _FAMILIES.items() if isinstance(value, family)), describe_object)


# A subclass of these may hold more.
_EXACT: dict[type, Rule] = {
    list: describe_sequence,
    tuple: describe_sequence,
    dict: describe_dict,
    types.MappingProxyType: describe_dict,
    set: describe_set,
    frozenset: describe_set,
    np.ndarray: describe_array,
    np.memmap: describe_array,
    functools.cached_property: describe_through("func"),
    types.MethodType: describe_through("__func__", "__self__"),
    type(jax.jit(lambda: None)): describe_jitted,
    dataclasses.Field: describe_through("default", "default_factory", "metadata"),
    type(functools.cache(lambda: None)): describe_through("__wrapped__"),
}
_FAMILIES: dict[type | tuple[type, ...], Rule] = {
    types.FunctionType: describe_function,
    type: describe_class,
    types.ModuleType: describe_module,
    types.CellType: describe_cell,
    property: describe_through("fget", "fset", "fdel"),
    (staticmethod, classmethod): describe_through("__func__"),
    (
        types.BuiltinFunctionType,
        types.MethodDescriptorType,
        types.WrapperDescriptorType,
        types.MethodWrapperType,
        types.ClassMethodDescriptorType,
        types.MemberDescriptorType,
        types.GetSetDescriptorType,
    ): describe_builtin,
    (jax.Array, np.generic): describe_array,
    enum.Enum: describe_member,
    functools.partial: describe_through("func", "args", "keywords", "__dict__"),
    weakref.ReferenceType: describe_weakly,
    inspect.Signature: describe_signature,
    jax.tree_util.PyTreeDef: describe_structure,
    # The same problem on other devices is the same.
    jax.Device: lambda walk, path, value: walk.record(path, "a device"),
}
