"""What a tree consists of, part by part, in a text that is the same in every process and release of Python."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import jax

from .._backend.compat import members_of
from .._display.text import is_array, kind

_ATOMS = (bool, bytes, complex, float, int, str, type(None))


def outline(tree: Any) -> dict[str, str]:
    """A text for each part by its path, `models.measure.weights`.

    An array has its type and shape, a number or a text is itself, all else has the name of its class or function.
    """
    return {path: _text(value) for path, value in _walk("", tree)}


def codes(tree: Any) -> dict[str, tuple[str, ...]]:
    """The names of the codes of each member of an enumeration, by the path of its integer."""
    found = ((path, value) for path, value in _walk("", tree) if _is_enumeration(value))
    return {path.removesuffix("_enumeration") + "_value": members_of(value) for path, value in found}


def arrays_of(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path).removeprefix("."): leaf for path, leaf in leaves if is_array(leaf)}


def _walk(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    yield path.removeprefix("."), value
    for name, part in _parts(value):
        yield from _walk(path + name, part)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a container, named as JAX names them."""
    if isinstance(value, type) or is_array(value):
        return
    if dataclasses.is_dataclass(value):
        yield from ((f".{field.name}", getattr(value, field.name, None)) for field in dataclasses.fields(value))
    elif hasattr(value, "_fields"):
        yield from ((f".{name}", getattr(value, name)) for name in value._fields)
    elif isinstance(value, Mapping):
        yield from ((f"[{key!r}]", entry) for key, entry in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"[{index}]", entry) for index, entry in enumerate(value))


def _text(value: Any) -> str:
    if is_array(value):
        return kind(value)
    if isinstance(value, _ATOMS):
        return repr(value)
    length = f" of {len(value)}" if isinstance(value, list | tuple | Mapping) else ""
    return getattr(value, "__qualname__", type(value).__qualname__) + length


def _is_enumeration(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, eqx.Enumeration)
