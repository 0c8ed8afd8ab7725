"""A run on disk: its problem, its checkpoints, and the states at the saved times."""

import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..._backend.fingerprint import Fingerprint, fingerprint
from ..._backend.host import on_host
from ..._checks import shown
from ..._extras import needed
from ..._storage.files import written_whole
from .._problem import Problem
from .._state import State, pack
from .segment import Snapshot


class RunDirectory:
    """A run's directory.

    - `problem.json`: the problem's fingerprint.
    - `checkpoints/STEPS/`: the snapshot after STEPS steps, by Orbax. The last two are kept.
    - `saves/INDEX.npz`: the state at `taus[INDEX]`, arrays named by their paths. NumPy reads it, also during the run.

    **Raises:** `ValueError` if the directory holds another problem (the message names the difference), if its problem
    is unknown, or if a part of the problem cannot be compared with a later one.
    """

    def __init__(self, directory: str | os.PathLike, problem: Problem):
        self._directory = _folder(directory)
        self._problem = problem
        self._taus = np.asarray(problem.taus)
        self._begin(problem)
        self._orbax: Any = needed("orbax.checkpoint", "checkpoints", "`directory`")
        self._manager = self._orbax.CheckpointManager(
            self._directory / "checkpoints", options=self._orbax.CheckpointManagerOptions(max_to_keep=2)
        )
        self._abandoned: list[int] = []

    def _begin(self, problem: Problem) -> None:
        path, ours = self._directory / "problem.json", fingerprint(vars(problem))
        if path.exists():
            _check_same(_read(path), ours, self._directory)
            return
        if any(self._directory.glob("checkpoints/*")) or any(self._directory.glob("saves/*")):
            raise ValueError(
                f"`directory` must be new, or hold a run of the same problem; {self._directory} holds a run without "
                "problem.json, so its problem is unknown. Pass a new directory."
            )
        if jax.process_index() == 0:
            try:
                (self._directory / "saves").mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(
                    f"`directory` must be a folder that can be made; got {self._directory} ({error})."
                ) from error
            with written_whole(path) as file:
                file.write((json.dumps(ours._asdict(), indent=1) + "\n").encode())

    def restore(self, like: Snapshot) -> tuple[Snapshot, dict[int, State]] | None:
        """The latest undamaged snapshot and all saved states before it; None in a new directory.

        Arrays have the types and devices of those in `like`.

        **Raises:** `ValueError` that names the damaged file if every checkpoint is damaged.
        """
        first: _DamageError | None = None
        for steps in sorted(self._manager.all_steps(), reverse=True):
            try:
                snapshot = self._snapshot(steps, like)
                behind = np.flatnonzero(self._taus <= np.asarray(snapshot.tau))
                return snapshot, {int(index): self._load(int(index), snapshot.state) for index in behind}
            except _DamageError as error:
                first = error if first is None else first
                self._abandoned.append(steps)
        if first is None:
            return None
        raise ValueError(
            f"`directory` must hold undamaged files; {first}. Restore the file from a copy, or delete "
            f"{self._directory / 'checkpoints'}: the run then starts again from its first τ."
        ) from first

    def checkpoint(self, snapshot: Snapshot) -> None:
        """Write a snapshot, in the background."""
        # Checkpoints after the restored one would have the same names as those that are written now.
        while self._abandoned:
            self._manager.delete(self._abandoned.pop())
        steps = int(snapshot.stats["num_steps"])
        if steps != self._manager.latest_step():
            self._manager.save(steps, args=self._orbax.args.StandardSave(_named(jax.tree.leaves(snapshot))))

    def save(self, index: int, row: State) -> None:
        """Write the state at `taus[index]` atomically: a reader never sees a partial file."""
        if jax.process_index() != 0:
            return
        path = self._path(index)
        named = on_host(_named_row(self._problem, row))
        arrays = dict(zip(_paths(named), jax.tree.leaves(named), strict=True))
        with written_whole(path) as file:
            np.savez(file, allow_pickle=False, tau=self._taus[index], **arrays)

    def close(self) -> None:
        """Wait until checkpoints are written; raise if that failed."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _snapshot(self, steps: int, like: Snapshot) -> Snapshot:
        leaves, structure = jax.tree.flatten(like)
        target = self._orbax.args.StandardRestore(_named(map(_abstract, leaves)))
        try:
            stored = self._manager.restore(steps, args=target)
        # Orbax raises many types of errors for damaged files.
        except Exception as error:
            raise _DamageError(self._directory / "checkpoints" / str(steps)) from error
        return jax.tree.unflatten(structure, [stored[name] for name in _named(leaves)])

    def _load(self, index: int, like: State) -> State:
        """The state at `taus[index]`."""
        named, path = eqx.filter_eval_shape(_named_row, self._problem, like), self._path(index)
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                tau, leaves = arrays["tau"], [arrays[name] for name in _paths(named)]
        # So does NumPy.
        except Exception as error:
            raise _DamageError(path) from error
        expected = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(named)]
        if tau != self._taus[index] or [(leaf.shape, leaf.dtype) for leaf in leaves] != expected:
            raise _DamageError(path)
        restored = jax.tree.unflatten(jax.tree.structure(named), map(jnp.asarray, leaves))
        return on_host(pack(self._problem.geometry, **restored))

    def _path(self, index: int) -> Path:
        return self._directory / "saves" / f"{index:04d}.npz"


class _DamageError(Exception):
    """A file or folder of the run cannot be read."""

    def __str__(self) -> str:
        return f"{self.args[0]} is missing, truncated or has other contents"


def _folder(directory: str | os.PathLike) -> Path:
    if not isinstance(directory, str | os.PathLike) or "\0" in str(directory):
        raise ValueError(f"`directory` must be the path of a folder; got {shown(directory)}.")
    try:
        folder = Path(directory).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(
            f"`directory` begins with ~ and must then name a user; got {directory}, and there is no such user."
        ) from error
    if os.path.exists(folder) and not folder.is_dir():
        raise ValueError(f"`directory` must be a folder or a new path; {folder} is a file.")
    return folder


@eqx.filter_jit
def _named_row(problem: Problem, row: State) -> dict[str, Any]:
    """A state as a dictionary, in the structure of the model."""
    return row.named(problem.geometry, problem.model)


def _paths(tree: PyTree) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]


def _read(path: Path) -> Fingerprint:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if (
        not isinstance(found, dict)
        or found.keys() != set(Fingerprint._fields)
        or not all(map(_is_texts, found.values()))
    ):
        raise ValueError(
            f"`directory` must hold a run that this release of wgf can compare; {path} is empty, truncated or of "
            "another release, so its problem is unknown. Pass a new directory."
        )
    return Fingerprint(**found)


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())


def _check_same(theirs: Fingerprint, ours: Fingerprint, directory: Path) -> None:
    rule = f"`directory` must be new, or hold a run of the same problem; {directory} holds one"
    for package in sorted(ours.versions.keys() & theirs.versions.keys()):
        if theirs.versions[package] != ours.versions[package]:
            raise ValueError(
                f"{rule} that began with {package} {theirs.versions[package]}, not {ours.versions[package]}, whose "
                "functions may differ. Continue with that release, or pass a new directory."
            )
    for name in [*ours.parts, *theirs.parts]:
        if theirs.parts.get(name) != ours.parts.get(name):
            raise ValueError(
                f"{rule} whose `{name}` is {theirs.parts.get(name, 'absent')}, not {ours.parts.get(name, 'absent')}. "
                "Pass the problem of that run, or a new directory."
            )


def _named(leaves: Any) -> dict[str, Any]:
    """A flat dictionary, which Orbax restores unchanged."""
    return {f"{i:04d}": leaf for i, leaf in enumerate(leaves)}


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
