"""A run on disk: what is solved, where it stands, and the states at the saved times."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from ._chunk import Stage
from ._problem import Problem
from ._state import State, pack


class Store:
    """A run's directory.

    - `problem.json`: path, shape, type and digest of every array of the problem, and its structure.
    - `checkpoints/STEPS/`: the stage after so many steps, by Orbax; the last two are kept.
    - `saves/INDEX.npz`: the state at `taus[INDEX]`, named by path: to be read with NumPy, also while the run goes on.

    **Raises:** `ValueError` if the directory holds another problem, naming what differs.
    """

    def __init__(self, directory: Path, problem: Problem):
        self._directory = directory.absolute()
        self._problem = problem
        self._taus = np.asarray(problem.taus)
        self._begin(problem)
        self._manager = ocp.CheckpointManager(
            self._directory / "checkpoints", options=ocp.CheckpointManagerOptions(max_to_keep=2)
        )

    def _begin(self, problem: Problem) -> None:
        path, ours = self._directory / "problem.json", _description(problem)
        if path.exists():
            _check_same(json.loads(path.read_text()), ours, self._directory)
        elif jax.process_index() == 0:
            (self._directory / "saves").mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(ours, indent=1) + "\n")

    def restore(self, like: Stage) -> Stage | None:
        """The latest stage, with the types and on the devices of a like one; None in a new directory."""
        steps = self._manager.latest_step()
        if steps is None:
            return None
        leaves, structure = jax.tree.flatten(like)
        stored = self._manager.restore(steps, args=ocp.args.StandardRestore(_named(map(_abstract, leaves))))
        return jax.tree.unflatten(structure, [stored[name] for name in _named(leaves)])

    def checkpoint(self, stage: Stage) -> None:
        """Write a stage, in the background."""
        steps = int(stage.stats["num_steps"])
        if steps != self._manager.latest_step():
            self._manager.save(steps, args=ocp.args.StandardSave(_named(jax.tree.leaves(stage))))

    def save(self, index: int, row: State) -> None:
        """Write the state at `taus[index]`, in one move: a reader never meets half a file."""
        if jax.process_index() != 0:
            return
        path = self._path(index)
        named = on_host(_named_row(self._problem, row))
        arrays = dict(zip(_paths(named), jax.tree.leaves(named), strict=True))
        np.savez(path.with_suffix(".part.npz"), allow_pickle=False, tau=self._taus[index], **arrays)
        path.with_suffix(".part.npz").rename(path)

    def load(self, index: int, like: State) -> State:
        """The state at `taus[index]`."""
        named = eqx.filter_eval_shape(_named_row, self._problem, like)
        with np.load(self._path(index)) as arrays:
            leaves = [jnp.asarray(arrays[name]) for name in _paths(named)]
        return on_host(pack(self._problem.dynamics, **jax.tree.unflatten(jax.tree.structure(named), leaves)))

    def close(self) -> None:
        """Wait for what is being written; raise if that failed."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _path(self, index: int) -> Path:
        return self._directory / "saves" / f"{index:04d}.npz"


def on_host(tree: PyTree) -> PyTree[np.ndarray]:
    """Arrays as NumPy's, also those that are spread over the devices of many processes."""

    def one(leaf):
        return np.asarray(leaf if leaf.is_fully_addressable else multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(one, tree)


@eqx.filter_jit
def _named_row(problem: Problem, row: State) -> dict[str, Any]:
    """A state by the names that the model gives its parts."""
    return row.named(problem.dynamics, problem.model)


def _paths(tree: PyTree) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]


def _description(problem: Problem) -> dict[str, Any]:
    arrays, rest = eqx.partition(problem, eqx.is_array)
    # Where a function lies in memory is no part of what it is.
    structure = re.sub(r" at 0x[0-9a-f]+", "", f"{jax.tree.structure(problem)} {jax.tree.leaves(rest)}")
    return {
        "arrays": dict(zip(_paths(arrays), map(_digest, jax.tree.leaves(arrays)), strict=True)),
        "structure": hashlib.sha256(structure.encode()).hexdigest(),
    }


def _digest(leaf: jax.Array) -> str:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    data = hashlib.sha256(on_host(leaf).tobytes()).hexdigest()[:16]
    return f"{leaf.dtype}{list(leaf.shape)} {data}"


def _check_same(theirs: dict[str, Any], ours: dict[str, Any], directory: Path) -> None:
    theirs_of, ours_of = theirs["arrays"], ours["arrays"]
    for name in {**ours_of, **theirs_of}:
        if theirs_of.get(name) != ours_of.get(name):
            raise ValueError(
                f"`directory` must be new, or hold a run of the same problem; {directory} holds one whose `{name}` is "
                f"{theirs_of.get(name)}, not {ours_of.get(name)}."
            )
    if theirs["structure"] != ours["structure"]:
        raise ValueError(
            f"`directory` must be new, or hold a run of the same problem; {directory} holds one with the same arrays, "
            "but another encoder, loss, solver or number of steps in depth."
        )


def _named(leaves: Any) -> dict[str, Any]:
    """A flat dictionary, which Orbax reads back as it was written."""
    return {f"{i:04d}": leaf for i, leaf in enumerate(leaves)}


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
