"""Data-sheet rates of chips, and the seconds that kernels, arithmetic and messages take at these rates.

All of it is a forecast: nothing here was measured. Times are lower bounds where a rate is a peak.
"""

import dataclasses
from collections.abc import Iterable

from _account import Kernel, Message


@dataclasses.dataclass(frozen=True)
class Rates:
    """What a data sheet says of a chip, per second, and what is assumed for starts.

    - `memory`: bytes to and from its memory.
    - `arithmetic`: operations in float32.
    - `launch`: seconds between the starts of two kernels that do nothing.
    - `near`, `far`: bytes that a chip sends to others of its host, and to other hosts.
    - `latency`: seconds that a message takes at least, within a host and between hosts.
    - `host`: chips per host; of a TPU all chips of a slice, whose links do not pass the host.
    """

    memory: float
    arithmetic: float
    launch: float
    near: float
    far: float
    latency: tuple[float, float]
    host: int


RATES = {
    "h100": Rates(3.35e12, 6.7e13, 3e-6, 4.5e11, 5e10, (1e-5, 3e-5), 8),
    # In full precision a product takes six passes of its bfloat16 unit.
    "v5e": Rates(8.19e11, 1.97e14 / 6, 1e-6, 1e11, 1e11, (5e-6, 5e-6), 256),
}
ASSUMPTIONS = {
    "h100": "H100: 3.35 TB/s of memory, 67 TFLOP/s in float32, 3 µs per kernel; 450 GB/s to chips of its host of 8,\n"
    "50 GB/s to other hosts; a message takes at least 10 µs within a host, 30 µs between hosts.",
    "v5e": "v5e: 819 GB/s of memory, 33 TFLOP/s in float32 (six passes in bfloat16), 1 µs per kernel; 100 GB/s to the\n"
    "other chips of its slice; a message takes at least 5 µs.",
}


def kernels_seconds(kernels: Iterable[Kernel], rates: Rates) -> float:
    """The time of all kernels, one after the other: each takes a launch, or the time of its bytes if that is longer."""
    return sum(kernel.times * max(rates.launch, kernel.bytes / rates.memory) for kernel in kernels)


def messages_seconds(messages: Iterable[Message], rates: Rates) -> float:
    """The time of all messages, one after the other."""
    return sum(message.times * message_seconds(message, rates) for message in messages)


def message_seconds(message: Message, rates: Rates) -> float:
    r"""The time of one sum over n chips, h of them per host, on H hosts, of S bytes.

    \( 2 \frac{h-1}{h} \frac{S}{\text{near}} + 2 \frac{H-1}{H} \frac{S/h}{\text{far}} \), and the latency: rings within
    hosts, and between hosts one ring for each of the h shares. Chips of one host send to other hosts side by side.
    Other kinds of messages take half of it.
    """
    hosts = len({chip // rates.host for chip in message.group})
    each = len(message.group) / max(1, hosts)
    passes = 2 if message.kind == "all-reduce" else 1
    near = passes * (each - 1) / each * message.bytes / rates.near
    far = passes * (hosts - 1) / hosts * message.bytes / each / rates.far
    return near + far + rates.latency[hosts > 1]
