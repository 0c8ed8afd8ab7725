"""Checks of clouds, weights and options, before anything is compiled.

Traced values are not checked, because a check inside a program keeps that program out of JAX's persistent cache. At run
time, bad input gives a result that has not converged.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from .._backend.compat import is_traced
from .._checks import instance, on_host, on_host_in_float64, one_number, shown
from ._divergence import Potentials


def as_array(value: ArrayLike, name: str = "value") -> Array:
    """Return a JAX array. Values of the host are put on a device without compiling anything.

    **Raises:** `ValueError` that names the argument if the value is not an array of numbers.
    """
    if isinstance(value, jax.Array):
        return value
    try:
        return jax.device_put(np.asarray(value))
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be an array of numbers; got {shown(value)}.") from error


def real(name: str, array: Array) -> Array:
    """Return an array; raise `ValueError` if its numbers are complex."""
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"`{name}` must be real; got {array.dtype}. Pass its real part, `.real`.")
    return array


def check_cloud(name: str, points: ArrayLike, axes: str = "[n, P]") -> Array:
    """Return points as an array; raise `ValueError` unless they are finite numbers of 32 or 64 bits with these axes."""
    points = as_array(points, name)
    if points.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"`{name}` must hold numbers of float32 or float64; got {points.dtype}. Use `.astype`.")
    if points.ndim != axes.count(",") + 1 or 0 in points.shape:
        raise ValueError(f"`{name}` must have axes {axes}, none of them empty; got shape {points.shape}.")
    bad = ~(abs(on_host(points)) < np.inf)
    if not is_traced(bad) and bad.any():
        raise ValueError(f"`{name}` must be finite; got {int(bad.sum())} coordinates that are NaN or infinite.")
    return points


def check_pair(names: tuple[str, str], x: Array, y: Array) -> None:
    """Raise `ValueError` unless two clouds share one dimension and one type."""
    (first, second), dim = names, x.shape[-1]
    if y.shape[-1] != dim:
        raise ValueError(f"`{second}` must have points of {dim} coordinates, as `{first}` has; got {y.shape[-1]}.")
    if y.dtype != x.dtype:
        raise ValueError(f"`{second}` must be of {x.dtype}, as `{first}` is; got {y.dtype}. Use `.astype`.")


def check_weights(name: str, weights: ArrayLike | None, points: Array, balanced: bool = True) -> Array:
    """Return weights, uniform by default; raise `ValueError` unless those of each cloud are >= 0 and sum to 1.

    If transport is not balanced, any positive sum will do.
    """
    shape, dtype = points.shape[:-1], points.dtype
    if weights is None:
        return as_array(np.full(shape, 1 / shape[-1], dtype))
    weights = real(name, as_array(weights, name)).astype(dtype)
    if weights.shape != shape:
        raise ValueError(f"`{name}` must have a weight for each point, shape {shape}; got {weights.shape}.")
    known = on_host(weights)
    valid = are_weights(known) if balanced else are_masses(known)
    if not is_traced(valid) and not valid.all():
        rule, fix = ("with sum 1", "Divide by the sum.") if balanced else ("with a positive, finite sum", "Check them.")
        got = f"least weight {float(known.min()):g}, sums from {float(known.sum(axis=-1).min()):.7g} to "
        got += f"{float(known.sum(axis=-1).max()):.7g}"
        raise ValueError(f"`{name}` must be non-negative {rule}; got {got}. {fix}")
    return weights


def are_weights(weights: Any) -> Any:
    """Whether the numbers of each row are >= 0 and sum to 1 up to rounding."""
    tolerance = max(float(jnp.finfo(weights.dtype).eps) ** 0.5, 1e-4)
    return (weights >= 0).all(axis=-1) & (abs(weights.sum(axis=-1) - 1) <= tolerance)


def are_masses(weights: Any) -> Any:
    """Whether the numbers of each row are >= 0 and have a positive, finite sum."""
    total = weights.sum(axis=-1)
    return (weights >= 0).all(axis=-1) & (total > 0) & (total < np.inf)


def check_tau(name: str, value: float) -> float:
    """Return OTT's τ as a float; raise `ValueError` unless it lies in (0, 1]."""
    if is_traced(value) or not 0 < one_number(name, value) <= 1:
        raise ValueError(f"`{name}` must be a number above 0 and at most 1, not traced; got {value}.")
    return float(value)


def check_positive(name: str, value: ArrayLike, dtype: Any) -> Array:
    """Return the number in the given type; raise `ValueError` unless it is positive and finite."""
    if np.shape(value) != ():
        raise ValueError(f"`{name}` must be one number; got an array of shape {np.shape(value)}.")
    if is_traced(value):
        return jnp.asarray(value).astype(dtype)
    number = on_host_in_float64(name, value).astype(dtype)
    if not 0 < number < np.inf:
        raise ValueError(f"`{name}` must be positive and finite; got {value}, which is {number} in {dtype}.")
    return as_array(number)


def check_initial(initial: Potentials | None, x: Array, y: Array) -> Potentials:
    """Return initial potentials, infinite without a guess; raise `ValueError` unless they have the clouds' sizes."""
    sizes = x.shape[:-1], y.shape[:-1]
    if initial is None:
        return Potentials(*(as_array(np.full(size, np.inf, x.dtype)) for size in sizes * 2))
    instance("initial", initial, Potentials, "the `potentials` of an earlier divergence")
    got = initial.x.shape, initial.y.shape
    if got != sizes or (initial.x_self.shape, initial.y_self.shape) != sizes:
        raise ValueError(
            f"`initial` must be of the clouds' sizes, {sizes[0]} and {sizes[1]}; got {got[0]} and {got[1]}, and for "
            f"the transports to themselves {initial.x_self.shape} and {initial.y_self.shape}."
        )
    return jax.tree.map(lambda leaf: leaf.astype(x.dtype), initial)
