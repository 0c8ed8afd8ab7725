"""Float32 means float32: products of matrices at full precision on every backend.

JAX's own default rounds the factors: to TF32 on a GPU, with errors of 5e-4 to 2e-2 in one velocity, and to bfloat16 on
a TPU. Here products have full precision, unless `jax_default_matmul_precision` is set or a product asks for less.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import FunctionType, MethodType
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Function = TypeVar("_Function", bound=Callable[..., Any])


_PLAIN = "_wgf_plain"
_in_one_program: ContextVar[bool] = ContextVar("_in_one_program", default=False)


def full() -> AbstractContextManager[Any]:
    """A context in which full precision is the default of products, where the user has set no other default."""
    return nullcontext() if default_precision() is not None else jax.default_matmul_precision("highest")


@contextmanager
def one_program() -> Iterator[None]:
    """A context in which methods are plain functions: precision is set, and one program holds all that they compute."""
    token = _in_one_program.set(True)
    try:
        with full():
            yield
    finally:
        _in_one_program.reset(token)


def sets_precision(wrapper: _Function) -> _Function:
    """Mark a wrapper, made by `functools.wraps`, that calls its function within `full`: it needs no other wrapper."""
    setattr(wrapper, _PLAIN, vars(wrapper)["__wrapped__"])
    return wrapper


def _plain(function: Any) -> Callable[..., Any] | None:
    """The function within a wrapper that sets the precision; None for any other function."""
    plain = getattr(function, _PLAIN, None)
    # Further wrappers have this attribute, too, for `functools.wraps` copies it.
    return plain if plain is getattr(function, "__wrapped__", None) else None


def full_precision(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Call a function with full precision as the default of products, where the user has set no other default."""
    if _plain(function) is not None:
        return function

    # `updated=()`: the fields of a compiled function are not those of its wrapper.
    @sets_precision
    @functools.wraps(function, updated=())
    def at_full_precision(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with full():
            return function(*args, **kwargs)

    return at_full_precision


def default_precision() -> str | None:
    """The default of products here: JAX's `jax_default_matmul_precision`. None: the backend's own."""
    return jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]


class Module(eqx.Module):
    """An Equinox module whose public methods run at full precision. So do those of all its subclasses.

    Every module of this library derives from it, and with them the encoders, losses and laws that users write.
    """

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        fields = inspect.get_annotations(cls)
        for name, member in list(vars(cls).items()):
            is_called = not name.startswith("_") or name == "__call__" or _plain(member) is not None
            # The default of a field may be a function, which is not a method.
            if is_called and name not in fields:
                setattr(cls, name, _cover(member))
            # Equinox takes these from the class itself.
            elif name in ("__init__", "__check_init__"):
                setattr(cls, name, full_precision(member))


class _Method:
    """A method that sets the precision. Within `one_program` it is the plain function, without a wrapper."""

    def __init__(self, function: Callable[..., Any]):
        self.outer = full_precision(function)
        self.inner = _plain(self.outer) or self.outer

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self.outer
        return MethodType(self.inner if _in_one_program.get() else self.outer, instance)


def guard(cls: type, name: str, check: Callable[..., Any]) -> None:
    """Call `check` with the same positional arguments before a method that a class of modules defines.

    Within `one_program` the method stays as it is: the library has checked its arguments.
    """
    method = vars(cls).get(name)
    if not isinstance(method, _Method):
        return
    outer = method.outer

    @functools.wraps(outer)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            check(*args)
        return outer(*args, **kwargs)

    method.outer = guarded


def _cover(member: Any) -> Any:
    """A member of a class; methods run at full precision."""
    if getattr(member, "__isabstractmethod__", False):
        return member
    if isinstance(member, property):
        # Modules are immutable: there is nothing to set.
        return member if member.fget is None else property(full_precision(member.fget))
    if isinstance(member, (classmethod, staticmethod)):
        return type(member)(full_precision(member.__func__))
    return _Method(member) if _is_function(member) else member


def _is_function(value: Any) -> bool:
    """Whether a value is a function or a compiled function, not a class or another callable object."""
    return isinstance(value, FunctionType) or (hasattr(value, "__wrapped__") and callable(value))


def export(names: dict[str, Any]) -> None:
    """Make the public functions of a package, `globals()` of its `__init__.py`, run at full precision."""
    for name, value in list(names.items()):
        if not name.startswith("_") and _is_function(value):
            function = full_precision(value)
            # The name by which it is pickled.
            function.__module__, function.__qualname__ = names["__name__"], name
            names[name] = function


class custom_jvp:
    """`jax.custom_jvp`, with a rule that multiplies at the precision of the call.

    JAX traces a rule where a derivative is taken, which may be outside the function that set the precision.
    """

    def __init__(self, function: Callable[..., Any], nondiff_argnums: tuple[int, ...] = ()):
        functools.update_wrapper(self, function)

        def called(precision, *args):
            del precision
            return function(*args)

        self._called = jax.custom_jvp(called, nondiff_argnums=(0, *(index + 1 for index in nondiff_argnums)))

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        return self._called(default_precision(), *args)

    def defjvp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Set the rule, as `jax.custom_jvp` takes it."""

        def at_precision(precision, *args):
            with jax.default_matmul_precision(precision):
                return rule(*args)

        self._called.defjvp(at_precision)
        return rule
