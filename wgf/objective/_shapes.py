"""Checks of what a user's own loss or readout returns. They need only shapes and types, and compile nothing."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def result_of(rule: str, name: str, function: Callable[..., Any], *arguments: Any) -> jax.ShapeDtypeStruct:
    """The shape and type of what a function returns; raise `ValueError` with the rule unless it is one real array.

    Cost: one trace of the function, some milliseconds.
    """
    try:
        found = jax.eval_shape(lambda *values: function(*values), *arguments)
    except (TypeError, ValueError, IndexError) as error:
        if str(error).startswith("`"):  # The message already names its argument.
            raise
        text = str(error).split("\n")[0][:300]
        raise ValueError(f"{rule}; {name} raised {type(error).__name__}: {text}") from error
    if not isinstance(found, jax.ShapeDtypeStruct):
        raise ValueError(f"{rule}; {name} returned {type(found).__name__}.")
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"{rule}; {name} returned {found.dtype}, which has no derivative.")
    return found


def shape_text(array: Any) -> str:
    """A shape in words: `a number`, or `an array [3]`."""
    return "a number" if array.shape == () else f"an array {list(array.shape)}"
