"""The results folder of a run."""

import contextlib
import dataclasses
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._checks import expanded, instance, shown
from .._storage.files import written_whole
from .._storage.lock import locked
from .._storage.tree import UnknownPartError, entries_of, read_header, read_tree
from ._about import about
from ._config_file import config_from, load_config, portable, save_config
from ._parts import options_of
from ._result import AbstractResult, WithModels
from ._settings import settings

_WHOLE = "result/"
"""What the names of those entries of `result.npz` begin with that hold the result itself."""


def save(experiment: str, result: AbstractResult, *, seconds: float | None = None) -> Path:
    """Write the results folder and return it: `EXPERIMENT.png`, `result.npz`, `config.json` and `table.txt`.

    The folder is `result.config.out`, or a new one under `results/`. A run that it holds is replaced. `config.json` and
    `result.npz` also say which releases, device and precision this program has; save a result where it was computed.
    `result.npz` holds the named arrays, and the result itself for [`wgf.experiments.load`][] if it consists of arrays,
    plain values and objects of this library.

    **Arguments:** the experiment's name; the result; `seconds`: how long the run took until now, if it is known.

    **Raises:** `ValueError` if the name is none, or the folder cannot be made or written.
    """
    instance("result", result, AbstractResult, "the result of a study, e.g. a wgf.experiments.LimitResult")
    if not _is_name(experiment):
        raise ValueError(f"`experiment` must be the name of a study, e.g. 'limit'; got {shown(experiment)}.")
    folder = results_folder(result.config.out, experiment)
    with settings(result.config):
        record = {**about(result.config, seconds or 0.0), "seconds": seconds}
    facts = json.dumps({"experiment": experiment, **record})
    save_arrays(folder, {**result.arrays(), "about": facts, **_whole(result)})
    with written_whole(folder / "table.txt") as file:
        # The table may quote a file name whose bytes are not valid text.
        file.write((result.table() + "\n").encode(errors="backslashreplace"))
    with written_whole(folder / f"{experiment}.png") as file:
        result.figure().savefig(file, format="png", dpi=130)
    save_config(folder, experiment, result.config, record)
    return folder


def _is_name(experiment: Any) -> bool:
    """Whether this can be the name of a study, and of its figure."""
    return isinstance(experiment, str) and experiment.isidentifier()


def _whole(result: Any) -> dict[str, Any]:
    """The result as entries of `result.npz`; nothing if a part of it is of another kind."""
    if not dataclasses.is_dataclass(result):
        return {}
    kept: Any = result.without_models() if isinstance(result, WithModels) else result
    config = dataclasses.replace(kept.config, **{**portable(kept.config), "out": None})
    try:
        return entries_of(dataclasses.replace(kept, config=config), _WHOLE)
    except UnknownPartError:
        return {}


def load(folder: str | os.PathLike) -> Any:
    """The result of a finished run, from the file `result.npz` of its folder. Nothing is computed.

    ```python
    result = wgf.experiments.load("results/mine")
    print(result.table())
    result.figure().savefig("mine.pdf")
    ```

    **Arguments:**

    - `folder`: the results folder of a run of the command, or of [`wgf.experiments.save`][].

    **Returns:** what the experiment's `run` returned, e.g. [`wgf.experiments.LimitResult`][], without the models of its
    flows. Its arrays are on the default device. In its `config`, `x64` says in which precision it was computed, and
    `out` and `device` are None.

    **Raises:** `ValueError` if the folder holds no finished run, or its file is damaged or of another release.
    """
    return load_named(folder)[1]


def load_named(folder: str | os.PathLike) -> tuple[str, Any]:
    """The experiment's name, and its result.

    **Raises:** `ValueError` as [`wgf.experiments.load`][] does.
    """
    file = expanded("folder", folder) / "result.npz"
    if not os.path.isfile(file):
        raise ValueError(f"`folder` must be the folder of a finished run; got {shown(str(file.parent))}.")
    facts = read_header(file, "about")
    # So that arrays have the types that they had, in whatever precision this program computes.
    with jax.enable_x64(True):
        result = read_tree(file, _WHOLE)
    if not issubclass(type(result), AbstractResult) or not _is_name(facts.get("experiment")):
        raise ValueError(f"{file} is missing, damaged or of another release.")
    config = dataclasses.replace(result.config, device=None, x64=facts.get("precision") == "float64")
    return facts["experiment"], dataclasses.replace(result, config=config)


def results_folder(out: Path | None, experiment: str) -> Path:
    """Make the named folder, or a new one under `results/`, and check that the files of a run can be written there.

    **Raises:** `ValueError` if they cannot.
    """
    named = None if out is None else expanded("out", out)
    try:
        folder = _new_folder(experiment) if named is None else named
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".wgf-") as file:
            file.write(b"can be written")
        for name in (f"{experiment}.png", "result.npz", "config.json", "table.txt"):
            if (folder / name).exists():
                open(folder / name, "r+b").close()
    except OSError as error:
        raise ValueError(
            f"`out` must be a folder that can be made and written; got {named or 'results'} ({error})."
        ) from error
    return folder


def _new_folder(experiment: str) -> Path:
    """Make a new folder whose name is the experiment and the time."""
    stem = Path("results") / f"{experiment}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, count = stem, 0
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            count += 1
            folder = stem.with_name(f"{stem.name}-{count}")


@contextlib.contextmanager
def reserved(config: Any, experiment: str, *, force: bool = False) -> Iterator[tuple[Path, bool]]:
    """Make the results folder before the run, with its `config.json`, and lock it against other processes.

    A run that is killed can so be resumed or repeated. If an option cannot be used, the new file and folders are
    removed again.

    **Arguments:** `force`: whether the folder may hold a finished run with other options. Its files stay until the new
    ones are complete.

    **Returns:** as a context, the folder, and whether its `config.json` is that of this run.

    **Raises:** `ValueError` if the folder cannot be made or written, is in use by another process, or holds a finished
    run with other options.
    """
    parent = Path("results") if config.out is None else expanded("out", config.out)
    existing = {path for path in (parent, *parent.parents) if path.exists()}
    folder = results_folder(config.out, experiment)
    try:
        with locked(folder), _noted(folder, config, experiment, force) as is_new:
            yield folder, is_new
    except ValueError:
        for path in itertools.takewhile(lambda path: path not in existing, (folder, *folder.parents)):
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


@contextlib.contextmanager
def _noted(folder: Path, config: Any, experiment: str, force: bool) -> Iterator[bool]:
    """Write `config.json`, unless a finished run with other options is there. Yield whether it is that of this run."""
    file = folder / "config.json"
    before = file.read_bytes() if file.exists() else None
    if (folder / "result.npz").exists() and before is not None and (other := _other(folder, config, experiment)):
        if not force:
            raise ValueError(
                f"`out` must not hold another run; {folder} holds a finished run with {other}. Name another folder, or "
                "pass --force to replace it."
            )
        yield False
        return
    save_config(folder, experiment, config, about(config))
    try:
        yield True
    except ValueError:
        if before is not None:
            with written_whole(file) as old:
                old.write(before)
        elif not (folder / "parts").exists():
            file.unlink(missing_ok=True)
        raise


def _other(folder: Path, config: Any, experiment: str) -> str:
    """What the options in a folder differ in, in words; nothing if they are those of this run."""
    try:
        name, fields = load_config(folder)
        if name != experiment:
            return f"the experiment {name!r}"
        theirs, ours = options_of(config_from(type(config), fields)), options_of(config)
    except ValueError:
        return "an unreadable config.json"
    differing = [f"`{option}`" for option, value in ours.items() if value != theirs[option]]
    return f"other {' and '.join(differing)}" if differing else ""


def save_arrays(folder: Path, arrays: dict[str, Any]) -> None:
    """Write `result.npz` with named arrays."""
    with written_whole(folder / "result.npz") as file:
        np.savez(file, allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
