"""The mesh of devices over which arguments are spread, as a context for tracing, and its axes."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

import jax
from jax.sharding import AbstractMesh, NamedSharding
from jaxtyping import PyTree

from .compat import Tracer
from .plain import PLAIN
from .precision import full, sets_precision
from .programs import ROOM

_P = ParamSpec("_P")
_R = TypeVar("_R")
PROMPTS, PARTICLES = "prompts", "particles"
_AXES = {PROMPTS, PARTICLES}


def parts(axis: str) -> int:
    """The number of parts into which the mesh in context cuts prompts or particles; 1 in a `vmap` over that axis."""
    if PLAIN:
        return 1
    try:
        jax.lax.axis_size(axis)
    except NameError:
        return jax.sharding.get_abstract_mesh().shape.get(axis, 1)
    return 1


def on_own_mesh(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Call a function in the context of the mesh over which its arguments are spread, as set by `jax.set_mesh`.

    Encoders cut their means into one share per device of that mesh. Within a `jit` of the user the mesh of the
    arguments is unknown, and must be set by `jax.set_mesh`.
    """

    @sets_precision
    @functools.wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        ROOM.make()
        with _own_mesh((args, kwargs)), full():
            return function(*args, **kwargs)

    return called


def _own_mesh(tree: PyTree) -> AbstractContextManager[Any]:
    """The context of a tree's mesh, where it has one and no other is set."""
    mesh = _mesh_of(tree)
    if mesh is None or _AXES & set(jax.sharding.get_abstract_mesh().axis_names):
        return nullcontext()
    return jax.sharding.use_abstract_mesh(mesh)


def _mesh_of(tree: PyTree) -> AbstractMesh | None:
    """The first mesh with axes for prompts or particles of any array in a tree."""
    arrays = (leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array))
    shardings = (leaf.sharding for leaf in arrays if not isinstance(leaf, Tracer))
    meshes = (sharding.mesh.abstract_mesh for sharding in shardings if isinstance(sharding, NamedSharding))
    return next((mesh for mesh in meshes if mesh.size > 1 and _AXES & set(mesh.axis_names)), None)
