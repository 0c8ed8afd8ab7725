"""A walk through all that a problem holds: what was met, under which path, and how it was described."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any, NoReturn

from .release import release

ATOMS = {bool, bytes, complex, float, int, str, type(None), type(...), type(NotImplemented)}
# Attributes that say where a class or function stands in a text, and how it is documented.
_PLACE = {
    "__annotate__",
    "__annotate_func__",
    "__annotations__",
    "__annotations_cache__",
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__name__",
    "__orig_bases__",
    "__parameters__",
    "__qualname__",
    "__static_attributes__",
    "__type_params__",
}
_LONGEST = 80


class Walk:
    """The parts described so far, and the releases of the packages that some of them are named after.

    `rule_of` chooses how an object is described; the rule records a description and visits what the object holds.
    """

    def __init__(self, rule_of: Callable[[Any], "Rule"]):
        self.rule_of = rule_of
        self.parts: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        # Objects are held: the id of one that is gone may be used again.
        self._met: dict[int, tuple[str, Any]] = {}
        self._owners: dict[str, Any] = {}
        self._globals: set[str] = set()
        self._users: list[str] = []

    def visit(self, path: str, value: Any) -> None:
        """Describe an object and all that it holds."""
        if type(value) in ATOMS:
            self.record(path, short(repr(value)))
        elif id(value) in self._met:
            self.record(path, f"the same as {self._met[id(value)][0]}")
        elif not self._by_name(path, value):
            self._met[id(value)] = path, value
            self.rule_of(value)(self, path, value)
            # Functions and classes are described once. Whether two equal arrays or lists are one object has no meaning,
            # unless one lies within itself.
            if not isinstance(value, FunctionType | type):
                del self._met[id(value)]

    def children(self, path: str, children: Mapping[str, Any]) -> None:
        """Describe attributes, but for those that say where the object stands in a text."""
        for name in sorted(children.keys() - _PLACE):
            self.visit(f"{path}.{name}", children[name])

    def record(self, path: str, description: str) -> None:
        """Note a description; two parts never share an entry, even if their paths read the same."""
        while path in self.parts:
            path += "'"
        self.parts[path] = description

    def claim(self, wanted: str, owner: Any) -> str:
        """A name for a class or for a module's globals: the wanted one, unless another has it."""
        name, count = wanted, 1
        while self._owners.setdefault(name, owner) is not owner:
            count += 1
            name = f"{wanted}#{count}"
        return name

    def is_new(self, path: str) -> bool:
        """Whether a global is met for the first time."""
        known = path in self._globals
        self._globals.add(path)
        return not known

    def is_installed(self, module: str) -> bool:
        """Whether a module is part of a release, which then becomes part of the fingerprint."""
        found = release(module)
        if found is not None and found.version is not None:
            self.versions[found.package] = found.version
        return found is not None

    @contextmanager
    def used_by(self, path: str) -> Iterator[None]:
        """Name the function that uses the globals visited here."""
        self._users.append(path)
        yield
        self._users.pop()

    def refuse(self, path: str, what: str) -> NoReturn:
        """Raise: a part cannot be described."""
        users = f", used by `{self._users[-1]}`," if self._users else ""
        raise ValueError(
            f"`directory` needs a problem that a later run can compare with its own; `{path}`{users} {what}. Make it "
            "an equinox.Module with its numbers as fields, or a function of a module, or run without `directory`."
        )

    def _by_name(self, path: str, value: Any) -> bool:
        """Record an object that an installed package holds under its own name; False if it is none."""
        name, module = getattr(value, "__name__", None), getattr(value, "__module__", None)
        if not isinstance(name, str) or (module is not None and release(module) is None):
            return False
        long_name = getattr(value, "__qualname__", name)
        if isinstance(value, FunctionType) and "<locals>" in long_name:
            return False  # Made by another function: its code and what it closes over say what it is.
        if module is None or resolve(module, long_name) is not value:
            module, long_name = _holder(name, value), name
        if module is None:
            return False
        self.is_installed(module)
        self.record(path, f"{module}.{long_name}")
        return True


Rule = Callable[[Walk, str, Any], None]


def short(text: str) -> str:
    """A text as it is, or by its digest."""
    return text if len(text) <= _LONGEST else f"{text[:20]}... {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def resolve(module: str, name: str) -> Any:
    """What a module holds under a dotted name; None if it holds nothing there."""
    value = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def _holder(name: str, value: Any) -> str | None:
    """The installed module that holds an object which does not say so itself, as some universal functions do not."""
    holders = (m for m in sorted(sys.modules) if getattr(sys.modules[m], "__dict__", {}).get(name) is value)
    return next((module for module in holders if release(module) is not None), None)
