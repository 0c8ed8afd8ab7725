"""Compiled programs: how to drop them, and a limit to their number in one process."""

import time
import warnings
from pathlib import Path

import equinox as eqx
import jax

from . import canonical
from .precision import full_precision

_MAPS = Path("/proc/self/maps")
_MOST_MAPS = Path("/proc/sys/vm/max_map_count")
_SECONDS_BETWEEN_LOOKS = 5.0


@full_precision
def clear_caches() -> None:
    """Drop all compiled programs of this process, and with them the memory that they take.

    Functions compile anew at their next call. Solutions and models stay. Use it in a loop over many sizes.
    [`wgf.flow`][], [`wgf.run`][] and [`wgf.train`][] do the same, with a warning, before a process runs out of memory
    maps.

    It calls `equinox.clear_caches()` and `jax.clear_caches()`, so the programs of other libraries go too. A persistent
    compilation cache on disk (`jax_compilation_cache_dir`) stays.
    """
    canonical.forget()
    eqx.clear_caches()
    jax.clear_caches()


class Room:
    """Room for further programs, made before a process runs out of memory maps.

    Linux limits the memory maps of a process, mostly to 65,530. A solve of a new size takes hundreds of them for its
    programs. When none are left, LLVM ends the process ("Cannot allocate memory"). JAX keeps all programs, and compiles
    a dropped one anew at its next call. Other systems have no such limit.
    """

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._helps = True

    def make(self) -> None:
        """Drop JAX's programs, with a warning, if two thirds of the maps are taken.

        Looks at most every five seconds: to count many maps takes some hundredths of a second.
        """
        now = time.monotonic()
        if not self._helps or now < self._looked + _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = now
        if not (_MAPS.exists() and _MOST_MAPS.exists()):
            return
        taken, most = _count(), int(_MOST_MAPS.read_bytes())
        if taken < most * 2 // 3:
            return
        clear_caches()
        # Else others take the maps, and to drop programs again would cost time for nothing.
        self._helps = _count() < taken // 2
        warnings.warn(
            f"This process held {taken:,} of the {most:,} memory maps that the system allows it, most of them for the "
            "compiled programs of many sizes. wgf has dropped the programs (`wgf.clear_caches()`), because the process "
            "would have ended without them. Functions compile anew at their next call. Fewer distinct sizes need fewer "
            "programs: `wgf.flow_many` solves many sizes in few.",
            stacklevel=3,
        )


def _count() -> int:
    return _MAPS.read_bytes().count(b"\n")


ROOM = Room()
