"""The options of a run on disk: `config.json`, the input of `wgf rerun`."""

import dataclasses
import json
import os
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .._checks import expanded, shown
from .._storage.files import written_whole

_Config = TypeVar("_Config")
DATA_SETS = ("synthetic", "diabetes")
"""The data sets with a name. Every other text of an option `data` is a path."""


def save_config(folder: Path, experiment: str, config: Any, about: dict[str, Any] | None = None) -> None:
    """Write `config.json`, from which `wgf rerun` repeats the run. The results folder is left out. Paths are absolute.

    **Arguments:** `about`: what else the numbers depend on; for readers, not for `wgf rerun`.
    """
    record = {"experiment": experiment, **portable(config), "out": None, "about": about}
    with written_whole(folder / "config.json") as file:
        file.write((json.dumps(record, indent=2, default=str) + "\n").encode())


def portable(config: Any) -> dict[str, Any]:
    """The fields of a config, with the same meaning in every working folder: paths to what exists are absolute."""
    return {name: _absolute(name, value) for name, value in dataclasses.asdict(config).items()}


def _absolute(name: str, value: Any) -> Any:
    """The absolute path of a file or folder that exists; every other value as it is."""
    if not (isinstance(value, Path) or (name == "data" and isinstance(value, str) and value not in DATA_SETS)):
        return value
    try:
        path = expanded(name, Path(value))
    except ValueError:
        return value  # The run itself refuses it.
    return type(value)(os.path.abspath(path)) if os.path.exists(path) else value


def load_config(path: Path) -> tuple[str, dict[str, Any]]:
    """Read a `config.json` into the experiment's name and its fields.

    **Arguments:** `path`: a `config.json` or the folder that holds one. The encoding is UTF-8, or UTF-16 or UTF-32 with
    a byte-order mark.

    **Raises:** `ValueError` if the file does not exist, is not JSON, names a field twice, or names no experiment.
    """
    path = expanded("config", path)
    path = path / "config.json" if os.path.isdir(path) else path
    if not os.path.isfile(path):
        raise ValueError(f"`config` must be a config.json or the folder of a run; got {shown(str(path))}.")
    try:
        record = json.loads(path.read_bytes(), object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"`config` must be readable JSON; got {path}: {error}.") from error
    if not isinstance(record, dict) or not isinstance(record.get("experiment"), str):
        raise ValueError(
            f'`config` must name its experiment, as in {{"experiment": "limit", ...}}; got {path} without one.'
        )
    record.pop("about", None)
    return record.pop("experiment"), record


def config_from(config: type[_Config], fields: dict[str, Any]) -> _Config:
    """Build a config dataclass from the fields of a `config.json`.

    Absent fields take the defaults. If the field `quick` is true, these are the defaults of `--quick`.

    **Raises:** `ValueError` that names the field if it is unknown or its value has the wrong type.
    """
    types = get_type_hints(config)
    if unknown := set(fields) - set(types):
        raise ValueError(f"`config` must have fields of {sorted(types)}; got the unknown {shown(sorted(unknown))}.")
    values = {name: _field(name, value, types[name]) for name, value in fields.items()}
    defaults: Any = config.quick_default() if values.get("quick") else config()  # pyright: ignore[reportAttributeAccessIssue]
    return dataclasses.replace(defaults, **values)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields as a dictionary. A field that is named twice is an error: JSON would keep the last one silently."""
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{shown(twice)} more than once")
    return dict(pairs)


class _WrongTypeError(Exception):
    """A value has the wrong type at its place in the file."""

    def __init__(self, place: str, value: Any):
        self.place, self.value = place, value


def _field(name: str, value: Any, allowed: Any) -> Any:
    try:
        return _typed(name, value, allowed)
    except _WrongTypeError as error:
        text = json.dumps(error.value, ensure_ascii=False)
        text = text if len(text) <= 60 else f"{text[:57]}..."
        inside = f" as `{error.place}`" if error.place != name else ""
        raise ValueError(f"`{name}` must be {_in_words(allowed)}; got {text}{inside}.") from None


def _typed(place: str, value: Any, allowed: Any) -> Any:
    """Convert a JSON value to the annotated type: JSON has lists for tuples and strings for paths."""
    kind, options = get_origin(allowed) or allowed, get_args(allowed)
    if kind in (Union, UnionType):
        return None if value is None and NoneType in options else _typed(place, value, _other_than_none(options))
    if kind is tuple and isinstance(value, list):
        types = options[:1] * len(value) if options[1:] == (...,) else options
        if len(types) == len(value):
            pairs = zip(value, types, strict=True)
            return tuple(_typed(f"{place}[{index}]", *pair) for index, pair in enumerate(pairs))
    elif kind is Literal:
        if value in options:
            return value
    # In Python, true and false are instances of int.
    elif isinstance(value, bool) == (kind is bool) and isinstance(value, _JSON.get(kind, ())):
        try:
            return kind(value)
        except OverflowError:
            pass  # a whole number too large for a float
    raise _WrongTypeError(place, value)


_JSON: dict[Any, Any] = {bool: bool, int: int, float: (int, float), str: str, Path: str}
"""The types of JSON values that each field type accepts."""
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", Path: "a string"}


def _other_than_none(options: tuple[Any, ...]) -> Any:
    """The single type besides None."""
    (other,) = (option for option in options if option is not NoneType)
    return other


def _in_words(allowed: Any) -> str:
    kind, options = get_origin(allowed) or allowed, get_args(allowed)
    if kind in (Union, UnionType):
        return f"{_in_words(_other_than_none(options))} or null"
    if kind is Literal:
        return "one of " + ", ".join(f'"{option}"' for option in options)
    if kind is tuple:
        return f"[{', '.join('...' if option is ... else _in_words(option) for option in options)}]"
    return _NAMES[kind]
