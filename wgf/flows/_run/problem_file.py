"""The file `problem.json` of a run: which problem the directory holds."""

import json
from pathlib import Path
from typing import Any

import jax

from ..._backend.fingerprint import Fingerprint
from ..._storage.files import written_whole


def claim(folder: Path, ours: Fingerprint) -> None:
    """Write `problem.json` in a new folder; in one that holds a run, check that it is of the same problem.

    A file that cannot be read is written anew if the folder holds no states: nothing is lost with it.

    **Raises:** `ValueError` if the folder holds another problem, or states of an unknown one; `OSError` if the file
    cannot be written.
    """
    path = folder / "problem.json"
    found, holds_states = _read(path), any(any(folder.glob(f"{part}/*")) for part in ("checkpoints", "saves"))
    if found is not None:
        _check_same(found, ours, folder)
    elif holds_states and path.exists():
        raise ValueError(
            f"`directory` must hold a run that this release of wgf can compare; {path} is empty, truncated or of "
            "another release, so its problem is unknown. Pass a new directory, or restore the file from a copy."
        )
    elif holds_states:
        raise ValueError(
            f"`directory` must be new, or hold a run of the same problem; {folder} holds a run without problem.json, "
            "so its problem is unknown. Pass a new directory, or restore the file from a copy."
        )
    elif jax.process_index() == 0:
        with written_whole(path) as file:
            file.write((json.dumps(ours._asdict(), indent=1) + "\n").encode())


def _read(path: Path) -> Fingerprint | None:
    """The fingerprint in a file; None if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.keys() != set(Fingerprint._fields):
        return None
    return Fingerprint(**found) if all(map(_is_texts, found.values())) else None


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())


def _check_same(theirs: Fingerprint, ours: Fingerprint, folder: Path) -> None:
    rule = f"`directory` must be new, or hold a run of the same problem; {folder} holds one"
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
