"""All that JAX, Equinox and Diffrax do not promise to keep, each with what to do when it goes.

No other file imports `jax.core`, `jax.extend`, `jax.interpreters`, `jax.experimental` or `equinox.internal`.
"""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import diffrax
import jax

# Arithmetic on PyTrees, `(a**ω + b**ω).ω`. When it goes: `jax.tree.map`. The largest number below another: when it
# goes, `jax.numpy.nextafter` (wrong at 0 on TPUs). No derivative by some arguments: when it goes, a `jax.custom_jvp`
# that raises.
from equinox.internal import nondifferentiable as nondifferentiable, prevbefore as prevbefore, ω as ω

# The class of values that are known only when the program runs. When it goes: `jax.Array` with a test whether
# `numpy.asarray` raises `jax.errors.TracerArrayConversionError`, which JAX documents.
from jax.core import Tracer as Tracer

# One process of a cluster speaks to all. When it goes: a computation with replicated outputs.
from jax.experimental import multihost_utils as multihost_utils
from jaxtyping import Array, PyTree

from .plain import PLAIN

# Made and lowered by hand: the contraction of small arrays. When one of them goes: `WGF_PLAIN=1`, and `jnp.einsum` in
# `contract`.
if TYPE_CHECKING or not PLAIN:
    from jax.core import ShapedArray as ShapedArray

    # A mark on a call that XLA is not to inline. When it goes: `jax.jit` alone, which compiles more slowly.
    from jax.experimental.xla_metadata import set_xla_metadata as set_xla_metadata
    from jax.extend.core import Primitive as Primitive
    from jax.interpreters import ad as ad, batching as batching, mlir as mlir


def is_traced(*values: Any) -> bool:
    """Whether any of the values is known only at run time (under `jit`, `vmap` or `grad`)."""
    return any(isinstance(value, Tracer) for value in values)


def is_known(value: Any) -> bool:
    """Whether a value is at hand: also under `jax.grad` alone, whose tracers carry their values.

    When `to_concrete_value` goes: `not is_traced(value)`. Derivatives outside of `jit` then compile at each call.
    """
    return not isinstance(value, Tracer) or value.to_concrete_value() is not None


def function_of_jit(jitted: Any) -> Callable[..., Any]:
    """The function that `jax.jit` was given. A copy of what it returned has lost `__wrapped__`, but not its state.

    When the state goes: copies of compiled functions count as different ones.
    """
    state: Any = jitted.__getstate__()
    return getattr(jitted, "__wrapped__", state["fun"])


def knots_of_diffrax(dense: diffrax.DenseInterpolation) -> tuple[Array, Array, PyTree[Array], Callable[..., Any]]:
    """The step ends of a dense output, how many of them are filled, its data and the interpolation within one step.

    When these fields go: `DenseInterpolation.evaluate`, whose search XLA does not compile on GPUs within a loop.
    """
    return dense.ts, jax.numpy.asarray(dense.ts_size), dense.infos, dense.interpolation_cls


def memory_of(compiled: Any, *args: Any) -> Any:
    """XLA's plan of the memory of a function of `eqx.filter_jit`; None if the compiler of the device reports none.

    JAX keeps the program for a later call with arguments of the same shapes. When it no longer does: the call compiles
    again. When the fields of Equinox's stages go: `jax.jit(...).lower(...).compile().memory_analysis()`.
    """
    return compiled.lower(*args).compile().compiled.memory_analysis()


def members_of(enumeration: Any) -> tuple[str, ...]:
    """The names of an Equinox enumeration, in the order of its codes.

    When the table goes: the messages, `enumeration[item]`.
    """
    return tuple(enumeration._name_to_item)


def mend_ott(utils: ModuleType) -> None:
    """Give `ott.utils` what JAX has dropped and OTT 0.6.0 asks for when it works in blocks (`batch_size`).

    It marks containers that `vmap` takes for leaves, of which there are none here. When OTT asks no more: nothing.
    """
    if not hasattr(utils.batching, "is_vmappable"):
        utils.__dict__["batching"] = SimpleNamespace(is_vmappable=lambda value: False)
