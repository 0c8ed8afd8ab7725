"""The mesh of devices on which arguments lie, as a context for what is traced with them, and its axes."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
from jax.sharding import AbstractMesh, NamedSharding
from jaxtyping import PyTree

from .compat import Tracer
from .plain import PLAIN

_P = ParamSpec("_P")
_R = TypeVar("_R")
PROMPTS, PARTICLES = "prompts", "particles"
_AXES = {PROMPTS, PARTICLES}


def parts(axis: str) -> int:
    """In how many parts the mesh in context cuts prompts or particles: in one within a `vmap` over their axis."""
    if PLAIN:
        return 1
    try:
        jax.lax.axis_size(axis)
    except NameError:
        return jax.sharding.get_abstract_mesh().shape.get(axis, 1)
    return 1


def on_own_mesh(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Call a function in the context of the mesh that its arguments are spread over, as `jax.set_mesh` would set it.

    Encoders cut their means in as many shares as that mesh has parts. Within a `jit` of the user's own the mesh is not
    known: set it there.
    """

    @functools.wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        mesh = _mesh_of((args, kwargs))
        if mesh is None or _AXES & set(jax.sharding.get_abstract_mesh().axis_names):
            return function(*args, **kwargs)
        with jax.sharding.use_abstract_mesh(mesh):
            return function(*args, **kwargs)

    return called


def _mesh_of(tree: PyTree) -> AbstractMesh | None:
    """The first mesh with axes for prompts or particles of any array in a tree."""
    arrays = (leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array))
    shardings = (leaf.sharding for leaf in arrays if not isinstance(leaf, Tracer))
    meshes = (sharding.mesh.abstract_mesh for sharding in shardings if isinstance(sharding, NamedSharding))
    return next((mesh for mesh in meshes if mesh.size > 1 and _AXES & set(mesh.axis_names)), None)
