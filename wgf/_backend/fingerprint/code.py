"""What a function does, as far as its code says it: a digest, and the names that it looks up when it runs."""

import dis
import hashlib
import inspect
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

# Names that Python itself stores in the body of a class: its place in the file, and a set in any order.
_PLACES = {"__firstlineno__", "__static_attributes__"}
_GENERATES = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_FLAGS = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | _GENERATES


class Import(NamedTuple):
    """An import statement within a function: `from {'.' * level}module import *names`."""

    module: str
    level: int
    names: tuple[str, ...]


def digest_of_code(code: CodeType) -> str:
    """A digest of what the code computes: the same wherever the text stands, whatever the function's name.

    It depends on the bytecode, hence on the version of Python. Comments, blank lines, docstrings and annotations of the
    function itself have no part in it.
    """
    return hashlib.sha256(repr(_meaning(code)).encode()).hexdigest()[:16]


def globals_of(code: CodeType) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The global names that the code and the functions within it load, each with the attributes read from it at once.

    `sizes.model.width` gives `("sizes", ("model", "width"))`.
    """
    instructions = _instructions(code)
    for place, instruction in enumerate(instructions):
        if "GLOBAL" in instruction.opname or instruction.opname == "LOAD_NAME":
            yield instruction.argval, tuple(_attributes(instructions[place + 1 :]))
    for inner in _inner(code):
        yield from globals_of(inner)


def imports_of(code: CodeType) -> Iterator[Import]:
    """The modules that the code and the functions within it import when they run."""
    instructions = _instructions(code)
    for place, instruction in enumerate(instructions):
        if instruction.opname == "IMPORT_NAME":
            level, names = (constant.argval for constant in instructions[place - 2 : place])
            yield Import(instruction.argval, level, names or ())
    for inner in _inner(code):
        yield from imports_of(inner)


def _instructions(code: CodeType) -> list[dis.Instruction]:
    return [instruction for instruction in dis.get_instructions(code) if instruction.opname != "EXTENDED_ARG"]


def _attributes(instructions: list[dis.Instruction]) -> Iterator[str]:
    for instruction in instructions:
        if instruction.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            return
        yield instruction.argval


def _inner(code: CodeType) -> list[CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def _meaning(code: CodeType) -> tuple[Any, ...]:
    """All of a code object but its name and its place: constants stand where they are loaded."""
    instructions = _instructions(code)
    places = {i for i, step in enumerate(instructions) if step.opname == "STORE_NAME" and step.argval in _PLACES}
    steps = [
        (instruction.opcode, _constant(instruction.argval) if instruction.opcode in dis.hasconst else instruction.arg)
        for i, instruction in enumerate(instructions)
        if not {i, i + 1} & places
    ]
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    return *counts, *names, code.co_exceptiontable, tuple(steps)


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _meaning(value)
    if isinstance(value, tuple):
        return tuple(map(_constant, value))
    # Strings come in another order in each process.
    return sorted(map(repr, value)) if isinstance(value, frozenset) else value
