"""Trees in files of NumPy arrays, without pickle, that are read without a module of the same structure.

A tree consists of arrays, plain values, paths, containers, and dataclasses, named tuples, classes and functions of the
packages below. The file holds their names. Reading it looks these names up in modules that are imported already, and
calls nothing.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._backend.compat import members_of
from .._backend.host import on_host
from .files import written_whole

_HEADER = "header.json"
_TREE = "tree.json"
_PACKAGES = ("wgf", "jax", "equinox", "diffrax", "optax", "optimistix", "lineax", "ott")
"""The packages whose classes and functions may be named in a file."""
_PLAIN = (bool, float, int, str, type(None))


class UnknownPartError(TypeError):
    """A part of a tree cannot be kept in a file."""


def write_tree(path: Path, tree: Any, header: Mapping[str, Any]) -> None:
    """Write a tree, and a header of plain values, to an `.npz`. The file is whole at any time.

    **Raises:** `UnknownPartError` that names a part of the tree that cannot be written; `OSError` if the file cannot.
    """
    entries = {_HEADER: json.dumps(header), **entries_of(tree)}
    with written_whole(path) as file:
        np.savez(file, allow_pickle=False, **entries)


def entries_of(tree: Any, folder: str = "") -> dict[str, Any]:
    """A tree as entries of an `.npz` that may hold others, too: its structure as JSON, and its arrays.

    **Arguments:** `folder`: what the names of the entries begin with.

    **Raises:** `UnknownPartError` that names a part of the tree that cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_encoded(tree, arrays))
    return {f"{folder}{name}": entry for name, entry in ({_TREE: text} | arrays).items()}


def read_header(path: Path, entry: str = _HEADER) -> dict[str, Any]:
    """The header of a file of `write_tree`, or another entry of plain values in JSON.

    **Raises:** `ValueError` if the file is missing, damaged or of another kind.
    """

    def header_of(archive: Any) -> dict[str, Any]:
        found = json.loads(archive[entry].item())
        if not isinstance(found, dict):
            raise ValueError(f"{entry} is no header")
        return found

    return _read(path, header_of)


def read_tree(path: Path, folder: str = "") -> Any:
    """The tree of a file of `write_tree`, or of the `entries_of` a folder. The arrays of JAX lie on the default device.

    **Raises:** `ValueError` if the file is damaged or of another kind, or names what this release lacks.
    """

    def tree_of(archive: Any) -> Any:
        return _decoded(json.loads(archive[folder + _TREE].item()), lambda name: archive[folder + name])

    return _read(path, tree_of)


def _read(path: Path, read: Any) -> Any:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return read(archive)
    # NumPy, and what is beneath it, raise many types of errors for damaged files.
    except Exception as error:
        raise ValueError(f"{path} is missing, damaged or of another release.") from error


def _encoded(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A value as JSON. Its arrays are added to `arrays`."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _encoded_array(value, arrays)
    if isinstance(value, Mapping):
        return {"dict": [[_encoded(key, arrays), _encoded(part, arrays)] for key, part in value.items()]}
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return {type(value).__name__: [_encoded(part, arrays) for part in value]}
    fields = None if isinstance(value, type) else _fields_of(value)
    if fields is None:
        return {"name": _name(value)}
    node = {"fields": {name: _encoded(part, arrays) for name, part in fields.items()}, "class": _name(type(value))}
    # A release that adds a code may number them anew.
    enumeration = fields.get("_enumeration")
    return node if enumeration is None else node | {"codes": list(members_of(enumeration))}


def _encoded_array(value: Any, arrays: dict[str, np.ndarray]) -> dict[str, str]:
    name = f"array{len(arrays)}"
    if isinstance(value, np.ndarray | np.generic):
        arrays[name] = np.asarray(value)
        node = {"numpy" if isinstance(value, np.ndarray) else "scalar": name}
    elif jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        arrays[name] = on_host(jax.random.key_data(value))
        node = {"key": name, "impl": str(jax.random.key_impl(value))}
    else:
        arrays[name] = on_host(value)
        node = {"jax": name}
    if arrays[name].dtype.kind in "OV":
        raise UnknownPartError(f"an array of type {value.dtype} cannot be kept")
    return node


def _fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of a dataclass or a named tuple; None for any other object."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name) for name in names if hasattr(value, name)}
    return value._asdict() if hasattr(value, "_fields") else None


def _decoded(node: Any, array: Callable[[str], np.ndarray]) -> Any:
    if isinstance(node, _PLAIN):
        return node
    kind, content = next(iter(node.items()))
    match kind:
        case "numpy":
            return array(content)
        case "scalar":
            return array(content)[()]
        case "jax":
            return _on_device(array(content))
        case "key":
            return jax.random.wrap_key_data(jnp.asarray(array(content)), impl=node["impl"])
        case "path":
            return Path(content)
        case "dict":
            return {_decoded(key, array): _decoded(part, array) for key, part in content}
        case "list":
            return [_decoded(part, array) for part in content]
        case "tuple":
            return tuple(_decoded(part, array) for part in content)
        case "name":
            return _named(content)
        case _:
            return _decoded_object(node, array)


def _on_device(array: np.ndarray) -> jax.Array:
    placed = jnp.asarray(array)
    if placed.dtype != array.dtype:
        raise ValueError(f"{array.dtype} is not available")
    return placed


def _decoded_object(node: dict[str, Any], array: Callable[[str], np.ndarray]) -> Any:
    """An object of a class, made without a call of the class: fields may be what its arguments were turned into."""
    cls = _named(node["class"])
    fields = {name: _decoded(part, array) for name, part in node["fields"].items()}
    if "codes" in node:
        fields["_value"] = _renumbered(fields["_value"], node["codes"], members_of(fields["_enumeration"]))
    if hasattr(cls, "_fields"):
        return cls._make(fields[name] for name in cls._fields)
    made = object.__new__(cls)
    if not _needed(cls) <= set(fields) <= {field.name for field in dataclasses.fields(cls)}:
        raise ValueError(f"{cls} has other fields")
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def _needed(cls: Any) -> set[str]:
    """The fields without which there is no object of a class."""
    absent = dataclasses.MISSING
    return {
        field.name
        for field in dataclasses.fields(cls)
        if field.init and field.default is absent and field.default_factory is absent
    }


def _renumbered(value: Any, theirs: list[str], ours: tuple[str, ...]) -> Any:
    """Codes of an enumeration as they are numbered here."""
    if tuple(theirs) == ours:
        return value
    codes = np.asarray(value)
    return jnp.asarray(np.array([ours.index(theirs[code]) for code in codes.ravel()], codes.dtype).reshape(codes.shape))


def _name(value: Any) -> str:
    """Where a class or a function is found."""
    name = f"{getattr(value, '__module__', None)}:{getattr(value, '__qualname__', None)}"
    try:
        if _named(name) is value:
            return name
    except (AttributeError, KeyError, ValueError):
        pass
    raise UnknownPartError(f"{value!r} cannot be kept")


def _named(name: str) -> Any:
    module, _, path = name.partition(":")
    if module.partition(".")[0] not in _PACKAGES:
        raise ValueError(f"{name} is of another package")
    found = sys.modules[module]
    for part in path.split("."):
        found = getattr(found, part)
    return found
