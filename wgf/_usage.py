"""A command line that was typed wrongly: one line on standard error, and exit code 2."""

import contextlib
import dataclasses
import difflib
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from ._checks import shown

_Config = TypeVar("_Config")
_WRONG_USAGE = 2
"""The exit code of a command line that was typed wrongly."""


def parsed(
    parse: Callable[[], tuple[_Config, list[str]]], program: str, commands: Mapping[str, Any], args: Sequence[str]
) -> _Config:
    """The config that a parser makes of a command line.

    The parser's own report of an error is held back: it has many lines, and names options of all commands.

    **Arguments:**

    - `parse`: returns the config and the words that it does not know. On other errors it writes a report to standard
      error, and raises `SystemExit` with code 2.
    - `program`: the name of the program.
    - `commands`: a dataclass for each command. Its fields are the options, and those without a default are positional.
    - `args`: the words of the command line.

    **Raises:** `SystemExit` with code 2, after one line on standard error, if the command line cannot be parsed; what
    `parse` raises for other reasons, e.g. after the help.
    """
    first = args[0] if args else None
    if first is None or first not in commands:
        # The help, and what the parser knows besides the commands.
        if first is None or not (first in ("-h", "--help") or first.startswith("--tyro-")):
            _end(program, _wrong_command(first, commands))
        return parse()[0]
    program, options = f"{program} {first}", _options(commands[first])
    report = io.StringIO()
    try:
        with contextlib.redirect_stderr(report):
            config, unknown = parse()
    except SystemExit as stop:
        if stop.code != _WRONG_USAGE:
            raise
        _end(program, _wrong_value(report.getvalue(), commands[first], options, args[1:]))
    if unknown:
        _end(program, _unrecognized(unknown, options))
    if warnings := report.getvalue():
        print(warnings, end="", file=sys.stderr)
    return config


def _end(program: str, error: str) -> NoReturn:
    print(f"{program}: error: {error} See {program} --help.", file=sys.stderr)
    raise SystemExit(_WRONG_USAGE)


def _options(command: Any) -> dict[str, Any]:
    """The types of a command's options, by their names on the command line."""
    types = get_type_hints(command)
    fields = [field.name for field in dataclasses.fields(command) if not _is_required(field)]
    return {f"--{name.replace('_', '-')}": types[name] for name in fields}


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _name(word: str) -> str:
    """The option that a word of the command line names: `--weight_decay=1` is `--weight-decay`."""
    return word.partition("=")[0].replace("_", "-")


def _wrong_command(first: str | None, commands: Mapping[str, Any]) -> str:
    listed = f"one of {', '.join(commands)}"
    if first is None:
        return f"a command is missing, {listed}."
    if first.startswith("-"):
        return f"the command comes first, {listed}; got {shown(first)}."
    if close := difflib.get_close_matches(first, commands, n=1):
        return f"unrecognized command {shown(first)}, did you mean {close[0]}?"
    return f"the command must be {listed}; got {shown(first)}."


def _unrecognized(words: Sequence[str], options: Mapping[str, Any]) -> str:
    """What is wrong with words that no option takes. The first option among them explains the values after it."""
    word = next((word for word in words if word.startswith("-")), words[0])
    if not word.startswith("-"):
        return f"unrecognized argument {shown(word)}."
    name = _name(word)
    close = _closest(name, options)
    return f"unrecognized option {_in_line(name)}{f', did you mean {close}?' if close else '.'}"


def _in_line(word: str) -> str:
    """A word as it is, or its `repr` if that is not plain."""
    return word if re.fullmatch(r"[\w.-]{1,60}", word) else shown(word)


def _closest(name: str, options: Mapping[str, Any]) -> str | None:
    """The option that was meant: one with similar letters, or one that holds the word."""
    word = name.lstrip("-")
    names = [option.removeprefix("--") for option in options]
    close = difflib.get_close_matches(word, names, n=1) or [each for each in names if word in each and len(word) > 2]
    return f"--{close[0]}" if close else None


def _wrong_value(report: str, command: Any, options: Mapping[str, Any], args: Sequence[str]) -> str:
    """What is wrong with the values, from the option that the parser's report names."""
    name = next((name for name in map(_name, re.findall(r"--[\w-]+", report)) if name in options), None)
    if name is not None:
        return f"{name} takes {_takes(options[name])}; got {_given(name, args)}."
    if required := [field.name for field in dataclasses.fields(command) if _is_required(field)]:
        return f"`{required[0]}` is missing, {_takes(get_type_hints(command)[required[0]])}."
    return _first_paragraph(report)


def _given(name: str, args: Sequence[str]) -> str:
    """The last values of an option."""
    start = max((index for index, word in enumerate(args) if _name(word) == name), default=len(args))
    values = [word.partition("=")[2] for word in args[start : start + 1] if "=" in word]
    for word in args[start + 1 :]:
        if word.startswith("--"):
            break
        values.append(word)
    return shown(" ".join(values)) if values else "nothing"


_NOUNS = {int: ("a whole number", "whole numbers"), float: ("a number", "numbers"), str: ("a word", "words")}
_NOUNS |= {Path: ("a path", "paths"), bool: ("no value", "no values")}


def _takes(kind: Any) -> str:
    """What an option of a type takes, in words."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _takes(next(option for option in inside if option is not NoneType))
    if origin is Literal:
        return f"one of {', '.join(map(str, inside))}"
    if origin is not tuple:
        return _NOUNS[kind][0]
    part, is_open = inside[0], inside[1:] == (...,)
    if get_origin(part) is tuple:
        return f"{_NOUNS[get_args(part)[0]][1]} in groups of {len(get_args(part))}"
    return _NOUNS[part][1] if is_open else f"{len(inside)} {_NOUNS[part][1]}"


def _first_paragraph(report: str) -> str:
    """The first paragraph of a report, without the box around it."""
    lines = [line.strip(" │|") for line in report.splitlines() if not line.startswith(("╭", "╰", "+"))]
    rule = next((index for index, line in enumerate(lines) if line and not line.strip("─-")), len(lines))
    return f"{' '.join(' '.join(lines[:rule]).split()).rstrip('.')}."
