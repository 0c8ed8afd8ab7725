"""A training that is kept on disk, save by save."""

import contextlib
import os
import warnings
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..._backend.fingerprint import fingerprint
from ..._backend.host import on_host
from ..._storage.digests import DamageError, digest_of
from ..._storage.files import written_whole
from .._solution import TrainSolution
from .._training import Carry, Training
from .folder import alone, folder_at, keep, still_written
from .problem_file import claim


def train_in(directory: str | os.PathLike, training: Training, saves: int) -> TrainSolution:
    """The parameters at the start and at each save, computed or read from the directory, as a solution.

    The directory holds `problem.json`, the training's fingerprint, and `saves/INDEX.npz`: parameters, the optimiser's
    state and the key after INDEX × `save_every` updates, with a digest of them. A save that is damaged is computed anew
    from the one before, and so are those behind it. In the end, `solution.npz` holds the solution for [`wgf.load`][].

    **Raises:** `ValueError` as [`wgf.run`][] does; `OSError` that names the file if it can no longer be written.
    """
    if jax.process_count() > 1:
        raise ValueError(
            f"`directory` of a training needs one process; got {jax.process_count()}. Train without it, or by one."
        )
    folder, ours = folder_at(directory), fingerprint(vars(training))
    with contextlib.ExitStack() as held:
        try:
            (folder / "saves").mkdir(parents=True, exist_ok=True)
            held.enter_context(alone(folder))
            claim(folder, ours)
        except OSError as error:
            raise ValueError(
                f"`directory` must be a folder that can be made and written; got {folder} ({error})."
            ) from error
        rows = _train(folder, training, saves)
        solution = _collect(training, jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows))
        keep(folder, solution)
        return solution


def _train(folder: Path, training: Training, saves: int) -> list[PyTree[np.ndarray]]:
    carry = _start(training)
    rows, is_kept = [on_host(carry.parameters)], True
    for index in range(1, saves + 1):
        path = folder / "saves" / f"{index:04d}.npz"
        updates = index * training.save_every
        stored = _load(path, carry, updates) if is_kept else None
        is_kept = stored is not None
        if stored is None:
            carry = _advance(training, carry)
            with still_written(path), written_whole(path) as file:
                arrays = _named(carry, updates)
                np.savez(file, allow_pickle=False, **arrays, digest=np.asarray(digest_of(arrays)))
        else:
            carry = stored
        rows.append(on_host(carry.parameters))
    return rows


@eqx.filter_jit
def _start(training: Training) -> Carry:
    return training.start()


@eqx.filter_jit
def _advance(training: Training, carry: Carry) -> Carry:
    return training.advance(carry)


@eqx.filter_jit
def _collect(training: Training, parameters: PyTree[Array]) -> TrainSolution:
    return training.collect(parameters)


def _load(path: Path, like: Carry, updates: int) -> Carry | None:
    """What a file holds, of the types and on the devices of `like`; None, with a warning, if it is damaged."""
    if not path.exists():
        return None
    expected = _named(like, updates)
    try:
        with path.open("rb") as file, np.load(file) as opened:
            arrays, digest = {name: opened[name] for name in expected}, str(opened["digest"])
        is_whole = digest == digest_of(arrays) and _kinds(arrays) == _kinds(expected)
        if not is_whole or arrays.pop("updates") != updates:
            raise DamageError(path)
    # NumPy raises many types of errors for damaged files.
    except Exception:
        warnings.warn(f"{DamageError(path)}. The training resumes from the save before it.", stacklevel=5)
        return None
    leaves, structure = jax.tree.flatten(like)
    return jax.tree.unflatten(structure, map(_as, arrays.values(), leaves))


def _named(carry: Carry, updates: int) -> dict[str, np.ndarray]:
    """The arrays by number, keys as their data, and the number of updates before."""
    arrays = {f"{i:04d}": np.asarray(_data(leaf)) for i, leaf in enumerate(jax.tree.leaves(carry))}
    return {**arrays, "updates": np.asarray(updates)}


def _kinds(arrays: dict[str, np.ndarray]) -> list[tuple[Any, ...]]:
    return [(array.shape, array.dtype) for array in arrays.values()]


def _data(leaf: Array) -> Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _as(array: np.ndarray, like: Array) -> Array:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    return jax.device_put(array, like.sharding)


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
