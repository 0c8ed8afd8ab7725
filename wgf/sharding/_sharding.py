"""Sharding of a flow over devices: prompts along one axis of a mesh, particles along the other."""

from collections.abc import Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from .._backend.compat import multihost_utils
from .._backend.mesh import PARTICLES, PROMPTS
from .._checks import at_least, instance, shown
from ..measures import AbstractMeasure, Eulerian
from ..prompts import Prompts

_Tree = TypeVar("_Tree", bound=PyTree)


def mesh(*, prompts: int = 1, particles: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Arrange devices as `prompts` × `particles`.

    **Arguments:**

    - `prompts`, `particles`: the number of parts into which the data measure and the particles of each depth are cut.
    - `devices`: default: all of `jax.devices()`, including those of other processes.

    **Raises:** `ValueError` if a count is below 1, or there are not as many devices as parts.

    Good values: cut the prompts first. Devices that share prompts communicate once per velocity: they add up gradients,
    which are as large as the particles. Devices that share particles add up tokens, `[B, D, N+1]`, once per layer and
    direction. Cut the particles if one device cannot hold them.
    """
    shape = (at_least("prompts", prompts, 1), at_least("particles", particles, 1))
    if devices is not None and not isinstance(devices, Sequence | np.ndarray):
        raise ValueError(f"`devices` must be a list of devices, e.g. jax.devices()[:2]; got {shown(devices)}.")
    devices = jax.devices() if devices is None else list(np.ravel(np.asarray(devices, object)))
    for device in devices:
        instance("devices", device, jax.Device, "a list of devices, e.g. jax.devices()[:2]")
    if len(set(devices)) != len(devices):
        raise ValueError(f"`devices` must be different devices; got {shown(devices)}.")
    if len(devices) != shape[0] * shape[1]:
        raise ValueError(
            f"`prompts` x `particles` must be the number of devices, {len(devices)}; got {shape[0]} x {shape[1]}. Pass "
            "fewer devices with `devices=jax.devices()[:count]`."
        )
    return Mesh(np.asarray(devices).reshape(shape), (PROMPTS, PARTICLES), axis_types=(AxisType.Auto,) * 2)


def parse_mesh(text: str, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of all devices that a command-line text describes, e.g. `prompts=4,particles=2`.

    **Arguments:** `text`: the number of parts of each axis. `devices`: as in [`wgf.sharding.mesh`][].

    **Raises:** `ValueError` if the text is not of that form, or the number of devices is not the number of parts.
    """
    pairs = [pair.partition("=") for pair in text.split(",")] if isinstance(text, str) else [("", "", "")]
    axes = {name: count for name, _, count in pairs}
    if not set(axes) <= {PROMPTS, PARTICLES} or not all(map(_is_number, axes.values())):
        raise ValueError(f"`mesh` must be of the form prompts=4,particles=2; got {shown(text)}.")
    if len(axes) < len(pairs):
        raise ValueError(f"`mesh` must name each axis once, as in prompts=4,particles=2; got {shown(text)}.")
    return mesh(prompts=int(axes.get(PROMPTS, 1)), particles=int(axes.get(PARTICLES, 1)), devices=devices)


def start_processes(text: str) -> None:
    """Join the processes of a cluster: `jax.distributed.initialize`, from a command-line text.

    Call it before anything is computed. A second call does nothing.

    **Arguments:** `text`: `auto` if JAX can read the cluster's own variables (SLURM, TPU pods, Open MPI), else
    `ADDRESS:PORT,PROCESSES,ID`.

    **Raises:** `ValueError` if the text is of neither form.
    """
    address, *numbers = text.split(",") if isinstance(text, str) else [""]
    host, _, port = address.rpartition(":")
    known = host and len(numbers) == 2 and all(map(_is_number, (port, *numbers)))
    if text != "auto" and not known:
        raise ValueError(f"`distributed` must be auto or ADDRESS:PORT,PROCESSES,ID; got {shown(text)}.")
    if known and not (0 < int(port) < 2**16 and int(numbers[1]) < int(numbers[0])):
        raise ValueError(
            f"`distributed` must have a port from 1 to 65535, and an ID from 0 to PROCESSES - 1; got {shown(text)}."
        )
    if jax.distributed.is_initialized():
        return
    if text == "auto":
        jax.distributed.initialize()
    else:
        jax.distributed.initialize(address, num_processes=int(numbers[0]), process_id=int(numbers[1]))


def shard(tree: _Tree, mesh: Mesh) -> _Tree:
    """Put an objective or a model on a mesh: prompts and particles are cut, and all else is copied.

    `flow`, `run`, `train` and `velocity` then compute where the arrays are. XLA adds the communication: one sum over
    devices per layer and direction. Within your own `jit`, call them under `jax.set_mesh(mesh)`. Without it the numbers
    are the same, but devices communicate in every tile of a layer.

    ```python
    mesh = wgf.sharding.mesh(prompts=4, particles=2)
    wgf.flow(wgf.sharding.shard(objective, mesh), wgf.sharding.shard(model, mesh), taus)
    ```

    **Arguments:**

    - `tree`: anything that holds [`wgf.prompts.Prompts`][] or measures, e.g. an objective or a model with its tracers.
      With several processes, every process passes the same tree. In the place of arrays it may hold their shapes
      (`jax.ShapeDtypeStruct`, as `eqx.filter_eval_shape` returns them). They get their places, to compile a program for
      devices that are not there.
    - `mesh`: a mesh from [`wgf.sharding.mesh`][], or any mesh with axes named `prompts` and `particles`.

    **Raises:** `ValueError` if the number of prompts, or of particles at a depth, is not a multiple of the mesh's
    parts, or if the mesh lacks these axes.
    """
    instance("mesh", mesh, Mesh, "a mesh of devices, e.g. wgf.sharding.mesh(prompts=2)")
    if not {PROMPTS, PARTICLES} <= set(mesh.axis_names):
        raise ValueError(
            f"`mesh` must have axes named {PROMPTS!r} and {PARTICLES!r}; got {mesh.axis_names}. Make it with "
            "wgf.sharding.mesh."
        )

    def put(array, *axes: str | None):
        place = NamedSharding(mesh, PartitionSpec(*axes))
        if isinstance(array, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place)
        return jax.device_put(array, place)

    def place(node):
        if isinstance(node, Prompts):
            _check_divides("prompts", node.batch, mesh.shape[PROMPTS])
            return jax.tree.map(lambda leaf: put(leaf, PROMPTS), node)
        if isinstance(node, AbstractMeasure) and not isinstance(node, Eulerian):
            _check_divides("particles", node.width, mesh.shape[PARTICLES])
            shape = node.weights.shape
            return jax.tree.map(lambda leaf: put(leaf, None, PARTICLES) if leaf.shape[:2] == shape else put(leaf), node)
        return put(node) if eqx.is_array(node) or isinstance(node, jax.ShapeDtypeStruct) else node

    return jax.tree.map(place, tree, is_leaf=lambda node: isinstance(node, (Prompts, AbstractMeasure)))


def gather(tree: _Tree) -> _Tree:
    """Collect a tree of arrays on one device: the default device, or with several processes the first one of each.

    **Arguments:** `tree`: any tree, e.g. the solution of a flow before a gap or a figure is made.

    Not for `jit`: it moves known arrays.
    """
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    home = chosen if isinstance(chosen, jax.Device) else jax.local_devices()[0]

    def one(leaf):
        if not eqx.is_array(leaf):
            return leaf
        whole = leaf if leaf.is_fully_addressable else multihost_utils.process_allgather(leaf, tiled=True)
        return jax.device_put(whole, home)

    return jax.tree.map(one, tree)


def _is_number(text: str) -> bool:
    """Whether a text is a whole number of at most nine digits."""
    return text.isascii() and text.isdigit() and len(text) < 10


def _check_divides(axis: str, size: int, parts: int) -> None:
    if size % parts:
        raise ValueError(f"`{axis}` must be a multiple of the mesh's {parts} parts, to be cut evenly; got {size}.")
