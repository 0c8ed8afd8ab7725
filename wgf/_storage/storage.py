"""`save` and `load`: solutions in files of NumPy arrays, without pickle."""

import json
import os
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from .._backend.compat import is_traced
from .._backend.host import on_host
from .._backend.precision import full_precision
from .._checks import expanded, instance
from .._display.text import is_array
from .._versions import versions
from .files import written_whole
from .outline import arrays_of, codes, outline

_Module = TypeVar("_Module", bound=eqx.Module)
_HEADER = "header.json"
_FORMAT = 1


@full_precision
def save(path: str | os.PathLike, module: eqx.Module) -> None:
    """Write a solution, or any other Equinox module, to a file.

    The file is an `.npz` of NumPy without pickle: reading it runs no code. Each array has its path as its name, so that
    `numpy.load(path)["risk"]` works too. The entry `header.json` holds the structure and the versions of the packages.

    **Arguments:**

    - `path`: the file, e.g. `"flow.npz"`. A file that exists is replaced once the new one is complete.
    - `module`: a [`wgf.flows.FlowSolution`][], [`wgf.flows.TrainSolution`][], [`wgf.analysis.Replicates`][],
      [`wgf.analysis.Gap`][], a model, or any module. Functions and classes are not saved, only their names.

    **Raises:** `ValueError` if `path` is a link or a folder or cannot be written, or an array is traced.

    In several processes all must call `save`. The first one writes. Not for `jit`.
    """
    module, file = instance("module", module, eqx.Module, "a solution or another Equinox module"), _file(path)
    if is_traced(*arrays_of(module).values()):
        raise ValueError("`module` must hold known numbers; got traced ones. Call `save` outside of `jit` and `vmap`.")
    try:
        write(file, module)
    except OSError as error:
        raise ValueError(f"`path` must be a file that can be written; {file} cannot ({error}).") from error


def write(file: Path, module: eqx.Module) -> None:
    """Write a module of known numbers, as [`wgf.save`][] does.

    **Raises:** `OSError` if the file cannot be written.
    """
    arrays = arrays_of(module)
    keys = {name: str(jax.random.key_impl(leaf)) for name, leaf in arrays.items() if _is_key(leaf)}
    header = {"format": _FORMAT, "versions": versions(), "outline": outline(module), "codes": codes(module)}
    plain = {name: _plain(leaf) for name, leaf in arrays.items()}
    if jax.process_index() == 0:
        text = np.asarray(json.dumps(header | {"keys": keys, "arrays": sorted(plain)}))
        with written_whole(file) as part:
            np.savez(part, allow_pickle=False, **{_HEADER: text}, **plain)


@full_precision
def load(path: str | os.PathLike, like: _Module) -> _Module:
    """Read a solution, or any other Equinox module, that [`wgf.save`][] wrote.

    ```python
    like = equinox.filter_eval_shape(wgf.flow, objective, model, taus)  # solves nothing
    solution = wgf.load("flow.npz", like)
    ```

    **Arguments:**

    - `path`: the file.
    - `like`: a module of the same structure, whose arrays may be `jax.ShapeDtypeStruct`. It gives the functions and
      classes, and the arrays that are spread over a mesh of devices.

    **Returns:** a module like `like`, with the arrays of the file.

    **Raises:** `ValueError` that names the file if it is missing, damaged or of another kind (pickles are not read), or
    if its structure, or the type or shape of an array, differs from that of `like`. Other versions of the packages are
    no error.

    Not for `jit`: it reads a file.
    """
    instance("like", like, eqx.Module, "a module of the structure of the file")
    file = expanded("path", path)
    header, arrays = _read(file)
    _check_same(file, header["outline"], outline(like))
    for name, now in codes(like).items():
        arrays[name] = _translated(file, arrays[name], header["codes"][name], now)

    def place(name: str, leaf: Any) -> Any:
        if name in header["keys"]:
            return jax.random.wrap_key_data(jnp.asarray(arrays[name]), impl=header["keys"][name])
        # NumPy has no short floats. It keeps their bytes.
        array = arrays[name].view(leaf.dtype) if arrays[name].dtype.kind == "V" else arrays[name]
        if (array.dtype, array.shape) != (leaf.dtype, leaf.shape):
            raise _damage(file)
        return array if isinstance(leaf, np.ndarray) else _put(array, getattr(leaf, "sharding", None))

    found = iter([place(name, leaf) for name, leaf in arrays_of(like).items()])
    return jax.tree.map(lambda leaf: next(found) if is_array(leaf) else leaf, like)


def _put(array: np.ndarray, sharding: Any) -> jax.Array:
    """An array on the devices of a mesh, or on the default device."""
    return jax.device_put(array, sharding) if isinstance(sharding, NamedSharding) else jnp.asarray(array)


def _file(path: str | os.PathLike) -> Path:
    file = expanded("path", path)
    # Unlike the methods of a path, these raise no error for a name that the system refuses.
    if os.path.islink(file) or os.path.isdir(file):
        kind = "link" if os.path.islink(file) else "folder"
        raise ValueError(f"`path` must be a new path or a file; {file} is a {kind}.")
    return file


def _read(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a file."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            header = json.loads(archive[_HEADER].item())
            arrays = {name: archive[name] for name in archive.files if name != _HEADER}
            is_whole = header.get("arrays") == sorted(arrays)
    # NumPy, and what is beneath it, raise many types of errors for damaged files.
    except Exception as error:
        raise _damage(file) from error
    if header.get("format") != _FORMAT:
        raise ValueError(f"`path` must be a file of this release of wgf or an earlier one; {file} is of a later one.")
    if not is_whole:
        raise _damage(file)
    return header, arrays


def _damage(file: Path) -> ValueError:
    return ValueError(f"`path` must be a file that wgf.save wrote; {file} is missing, damaged or of another kind.")


def _check_same(file: Path, theirs: dict[str, str], ours: dict[str, str]) -> None:
    for name in [*ours, *theirs]:
        found, expected = theirs.get(name, "absent"), ours.get(name, "absent")
        if found != expected:
            raise ValueError(
                f"`like` must have the structure of {file}; its {name or 'class'} is {expected}, that of the file "
                f"{found}."
            )


def _translated(file: Path, array: np.ndarray, theirs: list[str], ours: tuple[str, ...]) -> np.ndarray:
    """Codes of an enumeration as they are numbered here: a release that adds one may number them anew."""
    names = [theirs[code] for code in array.ravel()]
    if unknown := sorted(set(names) - set(ours)):
        raise ValueError(f"`path` must hold codes that this release knows; {file} holds {', '.join(unknown)}.")
    return np.asarray([ours.index(name) for name in names], array.dtype).reshape(array.shape)


def _plain(leaf: Any) -> np.ndarray:
    """An array as NumPy has it."""
    if isinstance(leaf, np.ndarray | np.generic):
        return np.asarray(leaf)
    return on_host(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
