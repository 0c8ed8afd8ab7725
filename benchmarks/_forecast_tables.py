"""The tables of the forecast: one chip, clusters, and how messages grow."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from _account import Kernel, Message
from _rates import ASSUMPTIONS, RATES, kernels_seconds, messages_seconds
from _report import Check, Table
from rhs import arithmetic

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Program:
    """One velocity for chips: their kind, the shape of the cluster, the mesh (prompts, particles), and its size."""

    chip: str
    shape: str
    mesh: tuple[int, int]
    size: tuple[int, ...]

    @property
    def text(self) -> str:
        """All of it in a few words."""
        return f"{self.chip} {self.shape}, prompts x particles {self.mesh[0]} x {self.mesh[1]}, {self.size}"

    @property
    def count(self) -> int:
        """The number of chips."""
        return self.mesh[0] * self.mesh[1]

    def sent(self) -> tuple[int, int]:
        """The bytes that a chip must bring into sums in float32: of tokens along particles, of gradients along prompts.

        Tokens `[B, D, N+1]` of its prompts for each half of each layer, forward and backward. Gradients once: as large
        as its particles, of head (key, query, value) and neuron (two vectors).
        """
        depth, width, batch, dim, length, key_dim = self.size
        prompts, particles = self.mesh
        tokens = 4 * depth * (batch // prompts) * dim * length * 4
        gradients = depth * (width // particles) * (2 * key_dim * dim + dim**2 + 2 * dim) * 4
        return tokens * (particles > 1), gradients * (prompts > 1)


@dataclasses.dataclass(frozen=True)
class Found:
    """What was read off the compiler: its seconds, bytes of memory (those of all particles too), and the account."""

    seconds: float
    scratch: int
    arguments: int
    particles: int
    kernels: list[Kernel]
    messages: list[Message]

    def sent(self, chips: tuple[int, ...] | None = None) -> int:
        """The bytes that a chip brings into messages: all, or those of one group of chips."""
        return sum(each.times * each.bytes for each in self.messages if chips is None or each.group == chips)

    @property
    def largest_gather(self) -> int:
        """The bytes of the largest message that is not a sum."""
        return max((each.bytes for each in self.messages if each.kind != "all-reduce"), default=0)


def times(program: Program, found: Found) -> tuple[float, float, float]:
    """Seconds of kernels, of arithmetic, and of messages."""
    rates = RATES[program.chip]
    worked = sum(arithmetic(program.size)) / program.count / rates.arithmetic
    return kernels_seconds(found.kernels, rates), worked, messages_seconds(found.messages, rates)


def of_chips(programs: Sequence[Program], founds: Sequence[Found | None]) -> Table:
    """One velocity on one chip at several sizes."""
    rows = []
    for program, found in zip(programs, founds, strict=True):
        size = ", ".join(map(str, program.size[:3])), ", ".join(map(str, program.size[3:]))
        if found is None:
            rows.append((*size, *[None] * 8))
            continue
        rates = RATES[program.chip]
        count, moved = sum(k.times for k in found.kernels), sum(k.times * k.bytes for k in found.kernels)
        busy, worked, _ = times(program, found)
        starts, memory = count * rates.launch, moved / rates.memory
        milliseconds = [1e3 * each for each in (starts, memory, worked, max(busy, worked))]
        rows.append((*size, count, moved / 1e9, found.scratch / MIB, *milliseconds, found.seconds))
    columns = (
        *("L, M, B", "D, N+1, k", "kernels", "GB moved", "scratch MiB"),
        *("starts ms", "memory ms", "arithmetic ms", "forecast ms", "compiler s"),
    )
    note = (
        f"float32 at full precision. {ASSUMPTIONS['h100'].partition(';')[0]}. Forecast: each kernel takes "
        "the longer of its start\nand the time of its bytes; all together take at least the arithmetic. "
        "Bytes are an upper bound: caches are left out. Compiler: processor's seconds."
    )
    return Table("Forecast by the compiler: one velocity on one H100", columns, rows, note)


def of_clusters(title: str, programs: Sequence[Program], founds: Sequence[Found | None]) -> Table:
    """One velocity of one size on meshes of chips, and the claims on its messages."""
    rows, checks, alone = [], [], None
    for program, found in zip(programs, founds, strict=True):
        head = (program.shape, *program.mesh)
        if found is None:
            rows.append((*head, *[None] * 9))
            continue
        busy, worked, said = times(program, found)
        total = max(busy, worked) + said
        alone = alone or total * program.count
        count = sum(each.times for each in found.messages)
        numbers = count, found.sent() / 1e6, found.scratch / MIB, sum(k.times for k in found.kernels)
        seconds = busy, worked, said, total
        rows.append((*head, *numbers, *(1e3 * each for each in seconds), alone / program.count / total))
        if program.count > 1:
            checks += message_checks(program, found)
    columns = (
        *("shape", "prompts", "particles", "messages", "MB sent", "scratch MiB", "kernels"),
        *("kernels ms", "arithmetic ms", "messages ms", "forecast ms", "efficiency"),
    )
    depth, width, batch, *_ = programs[-1].size
    note = (
        f"L = {depth}, M = {width}, B = {batch}, D = 5, N+1 = 9, k = 2, float32. Shape: hosts x chips per host, or the "
        "slice. Numbers\nof one chip. MB sent: what it brings into sums over chips. Efficiency: to the first row.\n"
        f"{ASSUMPTIONS[programs[0].chip]}\nSums run in rings, one after the other, while nothing is computed. –: the "
        "program does not fit into\nthe chip's memory, or its compiler took too long."
    )
    return Table(f"Forecast by the compiler: {title}", columns, rows, note, checks)


def with_efficiency(table: Table) -> Table:
    """A table of clusters with the claim that chips are as efficient together as alone."""
    rows = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    checks = [
        Check(f"{row['shape']}, {row['prompts']} x {row['particles']}: efficiency", row["efficiency"], 0.9, 1.1)
        for row in rows
        if row["efficiency"] is not None
    ]
    return dataclasses.replace(table, checks=[*table.checks, *checks[1:]])


def message_checks(program: Program, found: Found) -> list[Check]:
    """No chip gets the particles of others, and what it brings into sums is what the formula says."""
    where = f"{program.chip}, {program.mesh[0]} x {program.mesh[1]}"
    return [
        Check(f"{where}: largest gather over all particles' bytes", found.largest_gather / found.particles, 0, 0.01),
        Check(f"{where}: bytes sent over the formula's", found.sent() / sum(program.sent()), 0.99, 1.01),
    ]


def of_growth(half: tuple[Program, Found | None], whole: tuple[Program, Found | None]) -> Table:
    """What a chip sends along each axis of the mesh, at half the width and at the whole."""
    rows, sent = [], []
    for program, found in (half, whole):
        if found is not None:
            along = [tuple(range(program.mesh[1])), tuple(range(0, program.count, program.mesh[1]))]
            sent.append([found.sent(group) for group in along])
            rows.append((program.size[1], *(each / 1e6 for each in sent[-1])))
    ratios = np.divide(*reversed(sent)) if len(sent) == 2 else ()
    names = ("tokens sent, twice the width over once", "gradients sent, twice the width over once")
    checks = [
        Check(name, float(ratio), low, low * 1.01) for name, ratio, low in zip(names, ratios, (1, 2), strict=False)
    ]
    note = "MB that a chip brings into sums over particles and over prompts, 8 x 8 H100; sizes as above."
    columns = ("M", "tokens MB", "gradients MB")
    return Table("Messages against the number of particles", columns, rows, note, checks)
