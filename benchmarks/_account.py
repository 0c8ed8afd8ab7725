"""What a compiled program does, read in its text: kernels, the bytes that they move, and messages between chips."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel: what it is, the bytes of a chip's memory that it reads and writes, and how often it runs."""

    name: str
    bytes: int
    times: int


@dataclasses.dataclass(frozen=True)
class Message:
    """A collective: its kind, the bytes that each chip brings, the chips of its first group, and how often it runs."""

    kind: str
    bytes: int
    group: tuple[int, ...]
    times: int


@dataclasses.dataclass(frozen=True)
class _Operation:
    name: str
    kind: str
    shape: str
    operands: tuple[str, ...]
    rest: str

    def calls(self, attribute: str) -> str:
        """The computation that an attribute names; empty if there is none."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.rest)
        return found[1] if found else ""


_Body = dict[str, _Operation]

_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_ARRAY = re.compile(r"\b(" + "|".join(_SIZES) + r")\[([\d,]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?[\]})]) ([\w\-]+)\((.*)$")
_MESSAGES = {"all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter", "collective-broadcast"}
# No work of their own.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "opt-barrier"}
_CUTS = {"dynamic-slice", "slice", "gather"}


def account(text: str) -> tuple[list[Kernel], list[Message]]:
    """The kernels and the messages of one run of an optimised program; loops are multiplied out.

    Bytes are an upper bound: a kernel reads its operands once and writes its result once. Of an operand from which it
    takes slices alone, the slices count; of a result written into an operand, the part that is new.

    **Raises:** `ValueError` if the program has a loop of unknown length.
    """
    bodies, entry = _parse(text)
    kernels, messages = [], []
    for body, operation, times in _walk(bodies, entry, 1):
        kind = operation.kind.removesuffix("-start")
        if kind in _MESSAGES:
            size = sum(numbers_bytes(body[name].shape) for name in operation.operands if name in body)
            messages.append(Message(kind, size, group(operation.rest), times))
        else:
            kernels.append(Kernel(_label(operation), _moved(bodies, body, operation), times))
    return kernels, messages


def numbers_bytes(shape: str) -> int:
    """The bytes of the numbers in a shape's text, wherever and however they lie."""
    return sum(_one(dtype, dims, "") for dtype, dims, _ in _ARRAY.findall(shape))


def array_bytes(shape: str) -> int:
    """The bytes of the arrays in a shape's text, padded to the layout's tiles; arrays on the chip itself count none."""
    return sum(_one(dtype, dims, layout) for dtype, dims, layout in _ARRAY.findall(shape) if "S(1)" not in layout)


def _one(dtype: str, dims: str, layout: str) -> int:
    sizes = [int(size) for size in dims.split(",") if size]
    tile = re.search(r":T\(([\d,]+)\)", layout)
    if tile and sizes:
        minor_first = [int(axis) for axis in layout.partition(":")[0].split(",")]
        # The last number of a tile belongs to the minor axis, which varies fastest in memory.
        for axis, length in zip(minor_first, reversed([int(size) for size in tile[1].split(",")]), strict=False):
            sizes[axis] = -(-sizes[axis] // length) * length
    return _SIZES[dtype] * math.prod(sizes)


def group(rest: str) -> tuple[int, ...]:
    """The chips of a collective's first group, from its attributes."""
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        chosen = [list(axes).index(name) for name in re.findall(r"'(\w+)'", found[2])]
        chips = np.arange(math.prod(axes.values())).reshape(tuple(axes.values()))
        chips = np.moveaxis(chips, chosen, range(-len(chosen), 0))
        return tuple(chips.reshape(-1, math.prod(chips.shape[-len(chosen) :]))[0].tolist())
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest):
        shape, mesh, order = (tuple(map(int, part.split(","))) if part else None for part in found.groups())
        chips = np.arange(math.prod(mesh)).reshape(mesh)
        return tuple(chips.transpose(order).reshape(shape)[0].tolist())
    found = re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}", rest)
    return tuple(map(int, found[1].split(","))) if found else ()


def _parse(text: str) -> tuple[dict[str, _Body], str]:
    """The computations of a program by name, and the name of the one that runs."""
    bodies: dict[str, _Body] = collections.defaultdict(dict)
    name = entry = ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            name = head[2]
            entry = name if head[1] else entry
        elif found := _LINE.match(line):
            out, shape, kind, rest = found.groups()
            operands = re.findall(r"%([\w.\-]+)", re.split(r"\)(?:, [a-z_]+=|$)", rest)[0])
            bodies[name][out] = _Operation(out, kind, shape, tuple(operands), rest)
    return bodies, entry


def _walk(bodies: dict[str, _Body], name: str, times: int) -> Iterator[tuple[_Body, _Operation, int]]:
    """Every operation that does work, with its computation, and how often it runs."""
    for operation in bodies[name].values():
        kind = operation.kind
        if kind == "while":
            yield from _walk(bodies, operation.calls("body"), times * _trips(bodies, operation))
        elif kind == "call":
            yield from _walk(bodies, operation.calls("to_apply"), times)
        elif kind == "async-start":
            yield from _walk(bodies, operation.calls("calls"), times)
        elif kind == "conditional":
            raise ValueError(f"the program must not branch, for what it does to be known; {operation.name} does.")
        elif kind not in _FREE and not kind.endswith(("-done", "-update")):
            yield bodies[name], operation, times


def _trips(bodies: dict[str, _Body], loop: _Operation) -> int:
    """The length of a loop: as XLA notes it for GPUs, else the constant below which its counter stays."""
    if found := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(found[1])
    condition = bodies[loop.calls("condition")]
    test = next((each for each in condition.values() if "direction=LT" in each.rest), None)
    limit = condition.get(test.operands[1]) if test else None
    if limit is None or limit.kind != "constant":
        raise ValueError(f"loops must have a known length, for what they do to be known; {loop.name} has none.")
    return _index(limit)


def _label(operation: _Operation) -> str:
    target = re.search(r'custom_call_target="([^"]*)"', operation.rest)
    return f"{operation.kind} {target[1]}" if target else operation.kind


def _moved(bodies: dict[str, _Body], body: _Body, operation: _Operation) -> int:
    """The bytes that a kernel reads and writes at most."""
    kind = operation.kind.removesuffix("-start")
    shapes = [body[name].shape if name in body else "" for name in operation.operands]
    if kind in _CUTS:
        return 2 * array_bytes(operation.shape)
    if kind == "dynamic-update-slice":
        return 2 * array_bytes(shapes[1])
    inner = bodies.get(operation.calls("calls"), {}) if kind == "fusion" else {}
    whole = array_bytes(operation.shape)
    if operation.kind != kind:
        # The result of an operation's start names the operands once more.
        whole -= sum(map(array_bytes, shapes))
    return sum(_read(inner, place, shape) for place, shape in enumerate(shapes)) + _written(inner, whole)


def _read(inner: _Body, place: int, shape: str) -> int:
    """The bytes that a fusion reads of an operand."""
    parameter = next((each for each in inner.values() if each.kind == "parameter" and _index(each) == place), None)
    uses = [] if parameter is None else _uses(inner, parameter.name)
    if uses and all(each.kind in _CUTS and operand == 0 for each, operand in uses):
        return sum(array_bytes(each.shape) for each, _ in uses)
    if uses and all(each.kind == "dynamic-update-slice" and operand == 0 for each, operand in uses):
        return 0
    return array_bytes(shape)


def _written(inner: _Body, whole: int) -> int:
    """The bytes that a fusion writes: of arrays that it updates in place, the new part."""
    for each in inner.values():
        if each.kind == "dynamic-update-slice":
            whole -= array_bytes(each.shape) - array_bytes(inner[each.operands[1]].shape)
    return max(0, whole)


def _uses(inner: _Body, name: str) -> list[tuple[_Operation, int]]:
    """The operations that take a value, past changes of its shape alone, and as which operand."""
    found = []
    for each in inner.values():
        for place, operand in enumerate(each.operands):
            if operand == name:
                found += _uses(inner, each.name) if each.kind in ("bitcast", "copy") else [(each, place)]
    return found


def _index(operation: _Operation) -> int:
    """The number in `parameter(3)` or `constant(3)`."""
    return int(operation.rest.partition(")")[0])
