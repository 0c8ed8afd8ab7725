"""How much of a Gibbs kernel is held at once, from the memory of the device that it is computed on."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Room(NamedTuple):
    """The most entries of a kernel that is held whole, and those of a block of a larger one."""

    whole: int
    block: int


# A CPU's limits are those of speed: 8192 x 8192 entries for one exponential each, and blocks that stay in its cache.
CPU = Room(2**26, 2**19)
# Bytes of memory where the device does not tell, e.g. in programs that are compiled for a device that is not here.
_UNKNOWN = 2**34


def rows_at_once(n: int, m: int, block: int | None, room: Room = CPU) -> int:
    """The number of rows of an n × m kernel to hold at once: `block`, or by default all rows that there is room for."""
    if block is not None:
        return min(block, n)
    return n if n * m <= room.whole else max(1, min(n, room.block // m))


def room_of(itemsize: int, devices: list[Any] | None = None) -> Room:
    """The room on these accelerators, by default those of this process: a kernel takes a quarter of their memory."""
    devices = [device for device in devices or jax.local_devices() if device.platform != "cpu"]
    known = [stats["bytes_limit"] for device in devices if (stats := device.memory_stats())]
    entries = min(known, default=_UNKNOWN) // itemsize
    return Room(entries // 4, entries // 64)


def by_platform(compute: Callable[..., Any], shape: tuple[int, int], block: int | None, itemsize: int, *args: Any):
    """`compute(rows, *args)` with the rows at once of a CPU in a program for a CPU, else those of the accelerator."""
    cpu, other = (rows_at_once(*shape, block, room) for room in (CPU, room_of(itemsize)))
    if cpu == other:
        return compute(cpu, *args)
    ways = {name: functools.partial(compute, rows) for name, rows in (("cpu", cpu), ("default", other))}
    return jax.lax.platform_dependent(*args, **ways)
