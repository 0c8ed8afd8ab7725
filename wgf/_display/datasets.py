"""Arrays with named dimensions, for xarray."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import PyTree

from .._backend.compat import is_traced
from .._backend.host import on_host
from .._extras import needed
from .._versions import versions
from .text import is_array

if TYPE_CHECKING:
    from xarray import Dataset as Dataset, DataTree as DataTree
else:
    Dataset = DataTree = Any

Variables = Mapping[str, tuple[tuple[str, ...], Any]]
"""The dimensions and the values of each array."""


def dataset(variables: Variables, coordinates: Variables, attributes: Mapping[str, Any] | None = None) -> Dataset:
    """An `xarray.Dataset` of arrays on the host.

    **Raises:** `ValueError` if an array is traced; `ImportError` that names the extra if xarray is not installed.
    """
    check_known(*(value for _, value in (*variables.values(), *coordinates.values())))

    def known(arrays: Variables) -> dict[str, Any]:
        return {name: (dims, on_host(jax.numpy.asarray(value))) for name, (dims, value) in arrays.items()}

    return _library().Dataset(known(variables), known(coordinates), dict(attributes or {}))


def check_known(*values: Any) -> None:
    """Raise `ValueError` if a value is traced."""
    if is_traced(*values):
        raise ValueError("`to_xarray` needs known numbers; got traced ones. Call it outside of `jit` and `vmap`.")


def data_tree(groups: Mapping[str, Dataset]) -> DataTree:
    """An `xarray.DataTree` of data sets by their paths; `/` is its root."""
    return _library().DataTree.from_dict(dict(groups))


def named(prefix: str, tree: PyTree, dims: tuple[str, ...]) -> dict[str, tuple[tuple[str, ...], Any]]:
    """The arrays of a tree by their paths. Axes after the named ones are `NAME_0`, `NAME_1`, ..."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if is_array(leaf):
            name = ".".join([prefix, jax.tree_util.keystr(path, simple=True, separator=".")]).rstrip(".")
            found[name] = ((*dims, *(f"{name}_{axis}" for axis in range(np.ndim(leaf) - len(dims)))), leaf)
    return found


def version_text() -> str:
    """The releases of the packages in one line, which any file format can hold."""
    return ", ".join(f"{package} {release}" for package, release in versions().items())


def _library() -> Any:
    return needed("xarray", "xarray", "`to_xarray`")
