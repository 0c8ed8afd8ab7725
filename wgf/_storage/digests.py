"""Digests of named arrays, and one file that keeps them: what was read back is what was written."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .files import written_whole


class DamageError(Exception):
    """A file or a folder cannot be read, or does not hold what was written to it. Its argument is the path."""

    def __str__(self) -> str:
        return f"{self.args[0]} is missing, truncated or has other contents"


def digest_of(arrays: Mapping[str, Any]) -> str:
    """A digest of the names, types, shapes and bytes of arrays of NumPy, in their order."""
    found = hashlib.sha256()
    for name, value in arrays.items():
        array = np.asarray(value)
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def write_digests(path: Path, digests: Mapping[str, str]) -> None:
    """Write digests by name, with a digest of their own, in a file that is whole at any time.

    **Raises:** `OSError` if the file cannot be written.
    """
    with written_whole(path) as file:
        file.write((json.dumps({"digest": _of_texts(digests), "digests": digests}, indent=1) + "\n").encode())


def read_digests(path: Path) -> dict[str, str]:
    """The digests by name.

    **Raises:** `DamageError` if the file is missing, cannot be read or was changed.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        digests, is_whole = found["digests"], found["digest"] == _of_texts(found["digests"])
    # A damaged file may hold any text, or bytes that are none.
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamageError(path) from error
    if not is_whole:
        raise DamageError(path)
    return digests


def _of_texts(texts: Mapping[str, str]) -> str:
    lines = "".join(f"{name} {text}\n" for name, text in sorted(texts.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
