"""The precision and the device of a run, set for the run alone."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import jax

_Config = TypeVar("_Config")
_P = ParamSpec("_P")
_R = TypeVar("_R")

Device = Literal["cpu", "gpu", "tpu"]


@contextmanager
def settings(config: Any) -> Iterator[None]:
    """A context with the precision and the device of a config. The caller's own settings return at its end.

    **Raises:** `ValueError` if the device is not available, or does not go with other options.
    """
    with ExitStack() as stack:
        if getattr(config, "x64", False):
            stack.enter_context(jax.enable_x64(True))
        if (kind := getattr(config, "device", None)) is not None:
            if getattr(config, "distributed", None) is not None:
                raise ValueError(
                    f"`device` goes with a single process; got {kind!r} with `distributed`. Set JAX_PLATFORMS={kind}."
                )
            stack.enter_context(jax.default_device(devices_of(kind)[0]))
        yield


def devices_of(kind: str) -> list[Any]:
    """The devices of a kind.

    **Raises:** `ValueError` if there is none.
    """
    try:
        return jax.devices(kind)
    except RuntimeError as error:
        there = sorted({device.platform for device in jax.devices()})
        raise ValueError(
            f"`device` must be available to JAX, here one of {there}; got {kind!r}. See how JAX is installed for it."
        ) from error


def with_settings(run: Callable[Concatenate[_Config, _P], _R]) -> Callable[Concatenate[_Config, _P], _R]:
    """Call the `run` of an experiment with the precision and the device of its config."""

    @functools.wraps(run)
    def wrapped(config: _Config, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with settings(config):
            return run(config, *args, **kwargs)

    return wrapped


def in_settings(method: Callable[[Any], _R]) -> Callable[[Any], _R]:
    """Call a method of a result, without arguments, with the precision and the device of the result's config."""

    @functools.wraps(method)
    def wrapped(self: Any) -> _R:
        with settings(self.config):
            return method(self)

    return wrapped
