"""How functions, classes and modules of the user's own are described: by what they do and what they refer to."""

import importlib
import importlib.util
import sys
from types import CellType, FunctionType, ModuleType
from typing import Any

import jax

from .code import digest_of_code, globals_of, imports_of
from .release import release
from .walk import Walk

# Functions that can read any name.
_UNBOUNDED = {"eval", "exec", "globals", "__import__"}
# What Python derives from the rest of a class.
_DERIVED = {"__abstractmethods__", "__dataclass_params__", "__dict__", "__slotnames__", "__weakref__", "_abc_impl"}
# The attribute by which beartype knows the functions that it has wrapped.
_CHECKED = "__beartype_wrapper"
_JITTED = jax.jit(lambda: None)
_NOTHING = object()


def describe_function(walk: Walk, path: str, function: FunctionType) -> None:
    """A function by its code, its defaults, what it closes over, its attributes, and the globals that it loads."""
    if _CHECKED in vars(function):
        # The code of a type checker holds addresses, and changes no number.
        walk.record(path, "a function with its types checked")
        walk.visit(f"{path}.__wrapped__", vars(function)["__wrapped__"])
        return
    code = function.__code__
    walk.record(path, f"a function of code {digest_of_code(code)}")
    walk.versions["python"] = f"{sys.implementation.cache_tag}{' -O' * sys.flags.optimize}"
    defaults = function.__defaults__ or ()
    named = dict(zip(code.co_varnames[: code.co_argcount][-len(defaults) :], defaults, strict=False))
    walk.children(f"{path}.__defaults__", named | (function.__kwdefaults__ or {}))
    walk.children(f"{path}.__closure__", dict(zip(code.co_freevars, function.__closure__ or (), strict=True)))
    wrapped = getattr(function, "__wrapped__", None)
    own = {name: value for name, value in vars(function).items() if getattr(wrapped, name, _NOTHING) is not value}
    walk.children(path, own)  # The others were copied by `functools.wraps`.
    # The globals of an installed function are part of its package.
    if not walk.is_installed(str(function.__globals__.get("__name__", ""))):
        with walk.used_by(path):
            _describe_globals(walk, path, function)
            _describe_imports(walk, path, function)


def describe_jitted(walk: Walk, path: str, function: Any) -> None:
    """A compiled function by the function itself, and by the attributes that it was given."""
    walk.visit(f"{path}.__wrapped__", function.__wrapped__)
    walk.children(path, {name: value for name, value in vars(function).items() if name not in vars(_JITTED)})


def describe_cell(walk: Walk, path: str, cell: CellType) -> None:
    """A variable that a function closes over."""
    try:
        content = cell.cell_contents
    except ValueError:
        walk.record(path, "not bound yet")
    else:
        walk.visit(path, content)


def describe_class(walk: Walk, path: str, cls: type) -> None:
    """A class by its bases and attributes. Those of the interpreter itself, such as that of functions, by name."""
    found = release(cls.__module__)
    name = f"{cls.__module__}.{cls.__qualname__}"
    if found is not None and found.version is None:
        walk.record(path, f"class {name}")
        return
    name = walk.claim(name, cls)
    walk.record(path, f"class {name}")
    walk.visit(f"{name}.__class__", type(cls))
    walk.visit(f"{name}.__bases__", cls.__bases__)
    walk.children(name, {attribute: value for attribute, value in vars(cls).items() if attribute not in _DERIVED})


def describe_module(walk: Walk, path: str, module: ModuleType) -> None:
    """A module by its name, and by all that it holds if it is the user's own."""
    walk.record(path, f"module {module.__name__}")
    if not walk.is_installed(module.__name__):
        for name in [name for name in vars(module) if not name.startswith("__")]:
            _describe_global(walk, vars(module), name, ())


def describe_builtin(walk: Walk, path: str, value: Any) -> None:
    """A method that is written in C, by its name and its object or class."""
    owner = getattr(value, "__self__", None)
    owner = getattr(value, "__objclass__", None) if owner is None else owner
    if owner is None or isinstance(owner, ModuleType):
        walk.refuse(path, f"is {value!r}, which no module holds by that name")
    walk.record(path, f"method {value.__name__}")
    walk.visit(f"{path}.__self__", owner)


def _describe_globals(walk: Walk, path: str, function: FunctionType) -> None:
    for name, attributes in globals_of(function.__code__):
        if name in function.__globals__:
            _describe_global(walk, function.__globals__, name, attributes)
        elif name in _UNBOUNDED:
            walk.refuse(path, f"calls `{name}`, which can read anything")


def _describe_global(walk: Walk, namespace: dict[str, Any], name: str, attributes: tuple[str, ...]) -> None:
    """A global, once; of a module of the user's own only the attribute that is read."""
    value = namespace[name]
    if isinstance(value, ModuleType) and attributes and not walk.is_installed(value.__name__):
        if attributes[0] in vars(value):
            _describe_global(walk, vars(value), attributes[0], attributes[1:])
        return
    path = f"{walk.claim(namespace.get('__name__', 'globals'), namespace)}.{name}"
    if walk.is_new(path):
        walk.visit(path, value)


def _describe_imports(walk: Walk, path: str, function: FunctionType) -> None:
    for module, level, names in imports_of(function.__code__):
        try:
            absolute = importlib.util.resolve_name("." * level + module, function.__globals__.get("__package__"))
            # Installed packages may take seconds to import.
            imported = None if walk.is_installed(absolute) else importlib.import_module(absolute)
        except ImportError:
            walk.record(f"{path}.{'.' * level}{module}", "a module that cannot be imported")
            continue
        if imported is not None and not names:
            walk.visit(f"{path}.{absolute}", imported)
        for name in names if imported is not None else ():
            if name in vars(imported):
                _describe_global(walk, vars(imported), name, ())
