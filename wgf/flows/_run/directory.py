"""A run on disk: its problem, its checkpoints, and the states at the saved times."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..._backend.fingerprint import fingerprint
from ..._backend.host import on_host
from ..._extras import needed
from ..._storage.digests import DamageError, digest_of, read_digests, write_digests
from ..._storage.files import written_whole
from .._problem import Problem
from .._solution import FlowSolution
from .._state import State, pack
from .folder import alone, folder_at, keep, still_written
from .problem_file import claim
from .segment import Snapshot


@contextlib.contextmanager
def run_directory(directory: str | os.PathLike, problem: Problem) -> Iterator["RunDirectory"]:
    """Open the directory of a run for one process, and wait at the end until all is written.

    **Raises:** `ValueError` if the directory holds another problem (the message names the difference), if its problem
    is unknown, if a part of the problem cannot be compared with a later one, if another process uses the directory, or
    if it cannot be made; `OSError` that names the file if it can no longer be written.
    """
    folder, ours = folder_at(directory), fingerprint(vars(problem))
    with contextlib.ExitStack() as held:
        try:
            (folder / "saves").mkdir(parents=True, exist_ok=True)
            held.enter_context(alone(folder))
            claim(folder, ours)
            held.enter_context(_without_logs())
            store = RunDirectory(folder, problem)
        except OSError as error:
            raise ValueError(
                f"`directory` must be a folder that can be made and written; got {folder} ({error})."
            ) from error
        try:
            yield store
        except BaseException:
            # What ended the run is the error to show.
            with contextlib.suppress(Exception):
                store.close()
            raise
        store.close()


class RunDirectory:
    """A run's directory.

    - `problem.json`: the problem's fingerprint.
    - `checkpoints/STEPS/`: the snapshot after STEPS steps, by Orbax. The last two are kept.
    - `saves/INDEX.npz`: the state at `taus[INDEX]`, arrays named by their paths. NumPy reads it, also during the run.
    - `digests.json`: digests of the checkpoints, and of the saves before the last of them.
    - `solution.npz`: the solution that the last call returned.
    """

    def __init__(self, folder: Path, problem: Problem):
        self._directory, self._problem = folder, problem
        self._taus = np.asarray(problem.taus)
        self._digests: dict[str, str] = {}
        self._checks = True
        self._orbax: Any = needed("orbax.checkpoint", "checkpoints", "`directory`")
        self._manager = self._orbax.CheckpointManager(
            folder / "checkpoints", options=self._orbax.CheckpointManagerOptions(max_to_keep=2)
        )
        self._abandoned: list[int] = []

    def restore(self, like: Snapshot) -> tuple[Snapshot, dict[int, State]] | None:
        """The latest undamaged snapshot and all saved states before it; None in a new directory.

        Arrays have the types and devices of those in `like`. A damaged checkpoint is skipped with a warning. Without
        `digests.json` files are taken as they are, with a warning.

        **Raises:** `ValueError` that names the damaged file if every checkpoint or `digests.json` is damaged.
        """
        steps, found, damages = sorted(self._manager.all_steps(), reverse=True), None, []
        if steps:
            self._read_digests()
        while steps and found is None:
            try:
                found = self._restored(steps[0], like)
            except DamageError as error:
                damages.append(error)
                self._abandoned.append(steps.pop(0))
        if damages and found is None:
            raise ValueError(
                f"`directory` must hold undamaged files; {damages[0]}. Restore the file from a copy, or delete "
                f"{self._directory / 'checkpoints'}: the run then starts again from its first τ."
            ) from damages[0]
        if damages:
            warnings.warn(f"{damages[0]}. The run resumes from the checkpoint after {steps[0]} steps.", stacklevel=5)
        return found

    def _read_digests(self) -> None:
        path = self._directory / "digests.json"
        self._checks = path.exists()
        if not self._checks:
            warnings.warn(
                f"{path} is missing, so that the files of the run cannot be checked. It resumes from them as they are.",
                stacklevel=6,
            )
            return
        try:
            self._digests = read_digests(path)
        except DamageError as error:
            raise ValueError(
                f"`directory` must hold undamaged files; {error}. Restore the file from a copy, or delete it: the run "
                "then resumes from its files as they are."
            ) from error

    def _restored(self, steps: int, like: Snapshot) -> tuple[Snapshot, dict[int, State]]:
        snapshot = self._snapshot(steps, like)
        behind = np.flatnonzero(self._taus <= np.asarray(snapshot.tau))
        return snapshot, {int(index): self._load(int(index), snapshot.state) for index in behind}

    def checkpoint(self, snapshot: Snapshot) -> None:
        """Write a snapshot, in the background.

        **Raises:** `OSError` if it cannot be written.
        """
        steps = int(snapshot.stats["num_steps"])
        path = self._directory / "checkpoints" / str(steps)
        with still_written(path):
            # Checkpoints after the restored one would have the same names as those that are written now.
            while self._abandoned:
                self._manager.delete(self._abandoned.pop())
            if steps != self._manager.latest_step():
                named = _named(jax.tree.leaves(snapshot))
                self._note(steps, digest_of(on_host(named)))
                self._manager.save(steps, args=self._orbax.args.StandardSave(named))

    def save(self, index: int, row: State) -> None:
        """Write the state at `taus[index]` atomically: a reader never sees a partial file.

        **Raises:** `OSError` if it cannot be written.
        """
        if jax.process_index() != 0:
            return
        path = self._path(index)
        named = on_host(_named_row(self._problem, row))
        arrays = {"tau": self._taus[index], **dict(zip(_paths(named), jax.tree.leaves(named), strict=True))}
        with still_written(path), written_whole(path) as file:
            np.savez(file, allow_pickle=False, **arrays)
        self._digests[self._name(path)] = digest_of(arrays)

    def keep(self, solution: FlowSolution) -> None:
        """Write the solution, for [`wgf.load`][].

        **Raises:** `OSError` if it cannot be written.
        """
        keep(self._directory, solution)

    def close(self) -> None:
        """Wait until checkpoints are written.

        **Raises:** `OSError` if that failed.
        """
        with still_written(self._directory / "checkpoints"):
            self._manager.wait_until_finished()
            self._manager.close()

    def _note(self, steps: int, digest: str) -> None:
        """Keep the digest of a checkpoint. It is written first, so that no checkpoint is without one."""
        kept = {f"checkpoints/{step}" for step in self._manager.all_steps()}
        old = {name: text for name, text in self._digests.items() if name.startswith("saves/") or name in kept}
        self._digests = old | {f"checkpoints/{steps}": digest}
        if jax.process_index() == 0:
            write_digests(self._directory / "digests.json", self._digests)

    def _snapshot(self, steps: int, like: Snapshot) -> Snapshot:
        path = self._directory / "checkpoints" / str(steps)
        leaves, structure = jax.tree.flatten(like)
        target = self._orbax.args.StandardRestore(_named(map(_abstract, leaves)))
        try:
            stored = self._manager.restore(steps, args=target)
            named = {name: stored[name] for name in _named(leaves)}
        # Orbax raises many types of errors for damaged files.
        except Exception as error:
            raise DamageError(path) from error
        self._check(path, digest_of(on_host(named)))
        return jax.tree.unflatten(structure, list(named.values()))

    def _load(self, index: int, like: State) -> State:
        """The state at `taus[index]`."""
        named, path = eqx.filter_eval_shape(_named_row, self._problem, like), self._path(index)
        try:
            with path.open("rb") as file, np.load(file) as opened:
                arrays = {name: opened[name] for name in ["tau", *_paths(named)]}
        # So does NumPy.
        except Exception as error:
            raise DamageError(path) from error
        self._check(path, digest_of(arrays))
        tau, *leaves = arrays.values()
        expected = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(named)]
        if tau != self._taus[index] or [(leaf.shape, leaf.dtype) for leaf in leaves] != expected:
            raise DamageError(path)
        restored = jax.tree.unflatten(jax.tree.structure(named), map(jnp.asarray, leaves))
        return on_host(pack(self._problem.geometry, **restored))

    def _check(self, path: Path, digest: str) -> None:
        """Compare a digest with the one that was written; keep it if there was none to compare with."""
        name = self._name(path)
        if self._checks and self._digests.get(name) != digest:
            raise DamageError(path)
        self._digests[name] = digest

    def _name(self, path: Path) -> str:
        return path.relative_to(self._directory).as_posix()

    def _path(self, index: int) -> Path:
        return self._directory / "saves" / f"{index:04d}.npz"


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Keep Orbax from logging what it finds damaged: `restore` says it in one warning."""
    logger = logging.getLogger("absl")
    logger.addFilter(_is_not_of_orbax)
    try:
        yield
    finally:
        logger.removeFilter(_is_not_of_orbax)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


@eqx.filter_jit
def _named_row(problem: Problem, row: State) -> dict[str, Any]:
    """A state as a dictionary, in the structure of the model."""
    return row.named(problem.geometry, problem.model)


def _paths(tree: PyTree) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]


def _named(leaves: Any) -> dict[str, Any]:
    """A flat dictionary, which Orbax restores unchanged."""
    return {f"{i:04d}": leaf for i, leaf in enumerate(leaves)}


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
