"""Compiled programs, of which one process can hold only so many."""

import warnings
from pathlib import Path

import jax

_MAPS = Path("/proc/self/maps")
_MOST_MAPS = Path("/proc/sys/vm/max_map_count")
_CALLS_PER_LOOK = 16


class Room:
    """Room for further programs, made before a process runs out of memory maps.

    Linux allows a process 65,530 memory maps. A solve of a new size takes some 400 of them for its programs, so that
    about 85 sizes fill a process, and LLVM then ends it ("Cannot allocate memory"). JAX keeps all programs; it compiles
    a dropped one anew at its next call. Other systems have no such limit.
    """

    def __init__(self) -> None:
        self._calls = 0
        self._helps = True

    def make(self) -> None:
        """Drop JAX's programs, with a warning, if two thirds of the maps are taken. Looks at every 16th call only."""
        self._calls += 1
        if self._calls % _CALLS_PER_LOOK or not (self._helps and _MAPS.exists() and _MOST_MAPS.exists()):
            return
        taken, most = _count(), int(_MOST_MAPS.read_bytes())
        if taken < most * 2 // 3:
            return
        jax.clear_caches()
        # Else others take the maps, and to drop programs again would cost time for nothing.
        self._helps = _count() < taken // 2
        warnings.warn(
            f"This process held {taken:,} of the {most:,} memory maps that the system allows it, most of them for the "
            "compiled programs of many sizes. wgf has dropped the programs (`jax.clear_caches()`), because the process "
            "would have ended without them. Functions compile anew at their next call. Fewer distinct sizes need fewer "
            "programs: `wgf.flow_many` solves many sizes in few.",
            stacklevel=3,
        )


def _count() -> int:
    return _MAPS.read_bytes().count(b"\n")


ROOM = Room()
