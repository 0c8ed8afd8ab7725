"""Checks that an encoder, its particles and the prompts fit together. They need only shapes and types."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._backend.compat import is_traced
from .._checks import at_least, check_memory, check_types, numbers, shown


def leading_axes(argument: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the leading axes of particles; raise `ValueError` unless they are a tuple of sizes that fit in memory."""
    if not isinstance(shape, tuple | list):
        raise ValueError(f"`{argument}` must be a tuple of sizes, e.g. (8,); got {shown(shape)}.")
    sizes = tuple(at_least(argument, size, 0) for size in shape)
    check_memory(**{argument: math.prod(sizes)})
    return sizes


def check_arguments(encoder: Any, particles: PyTree[Array], weights: Float[Array, " width"], tokens: Array) -> None:
    """Raise `ValueError` unless the arguments of an encoder's mean share one type and the particles fit the encoder."""
    numbers("tokens", tokens)
    numbers("weights", weights)
    jax.tree.map(lambda leaf: numbers("particles", leaf), particles)
    check_types(tokens, particles, weights)
    if tokens.ndim != 3:
        raise ValueError(
            f"`tokens` must have shape [B, D, N+1]; got {tokens.shape}. Pass a single prompt as `x[None]`."
        )
    axes = {leaf.shape[:1] for leaf in jax.tree.leaves(particles)}
    if not axes <= {weights.shape}:
        raise ValueError(
            f"`particles` must have the leading axis [width] of `weights`, {weights.shape}; got {sorted(axes)}. Pass a "
            "single particle as `jax.tree.map(lambda x: x[None], particle)`."
        )
    check_particles(encoder, particles, 1)
    _check_dim(encoder, tokens.shape[1])


def check_one(encoder: Any, particle: Any, tokens: Any, *_: Any) -> None:
    """Raise `ValueError` unless these are one particle of an encoder and one prompt. Only shapes and types are read."""
    tokens = numbers("tokens", tokens)
    if not jnp.issubdtype(tokens.dtype, jnp.floating):
        raise ValueError(f"`tokens` must be of a floating type; got {tokens.dtype}. Pass `.astype(jnp.float32)`.")
    if tokens.ndim != 2:
        raise ValueError(
            f"`tokens` must be one prompt, of shape [D, N+1]; got {tokens.shape}. For many prompts use "
            "`encoder.mean`, or `jax.vmap(encoder, (None, 0))`."
        )
    _check_dim(encoder, tokens.shape[0])
    jax.tree.map(lambda leaf: numbers("particle", leaf), particle)
    own = _particle_of(encoder)
    shapes, found = (jax.tree.map(lambda leaf: getattr(leaf, "shape", ()), tree) for tree in (own, particle))
    if own is not None and (shapes != found or jax.tree.structure(own) != jax.tree.structure(particle)):
        raise ValueError(
            f"`particle` must have the structure and shapes of the encoder's own, {shapes}; got {str(found)[:300]}. "
            "Draw one with `encoder.sample(key, ())`; for many particles use `encoder.mean` or `jax.vmap`."
        )


def _particle_of(encoder: Any) -> PyTree[jax.ShapeDtypeStruct] | None:
    """The shapes of one particle, remembered where the encoder has a hash: it then holds no arrays."""
    try:
        hash(encoder)
    except TypeError:
        return particle_of(encoder)
    return _remembered(encoder)


def _check_dim(encoder: Any, found: int) -> None:
    dim = getattr(encoder, "token_dim", found)
    if not is_traced(dim) and dim != found:
        raise ValueError(
            f"`tokens` must have the token dimension D of {type(encoder).__name__}, {dim}; got {found}. "
            "Build the encoder with `prompts.token_dim`."
        )


def check_particles(encoder: Any, particles: PyTree[Array], axes: int) -> None:
    """Raise `ValueError` unless particles, behind `axes` leading axes, have `sample`'s structure and shapes."""
    own = particle_of(encoder)
    if own is None:
        return
    shapes, found = jax.tree.map(lambda leaf: leaf.shape, own), jax.tree.map(lambda leaf: leaf.shape[axes:], particles)
    # Structures are compared too, because a named tuple equals a plain tuple.
    if shapes != found or jax.tree.structure(own) != jax.tree.structure(particles):
        raise ValueError(
            f"`particles` must have the structure and shapes of the encoder's own, {shapes}; got {found} behind "
            f"{axes} leading axes. Draw them with `encoder.sample`, or pass the encoder that they belong to."
        )


def check_call(encoder: Any, particles: PyTree[Array], tokens: Array) -> None:
    """Raise `ValueError` unless the encoder maps a prompt `[D, N+1]` to an array of the same shape and type.

    Nothing is compiled. Cost: one trace of `__call__`, a few milliseconds.
    """
    name = type(encoder).__name__
    particle = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), particles)
    prompt = jax.ShapeDtypeStruct(tokens.shape[1:], tokens.dtype)
    rule = f"`encoder` must map a prompt [D, N+1] = {list(prompt.shape)} to an array of the same shape and type"
    try:
        output = jax.eval_shape(lambda particle, tokens: encoder(particle, tokens), particle, prompt)
    except (TypeError, ValueError, IndexError) as error:
        if str(error).startswith("`"):  # The message already names its argument.
            raise
        raise ValueError(f"{rule}; {name} raised {type(error).__name__}: {error}") from error
    shape, dtype = getattr(output, "shape", None), getattr(output, "dtype", None)
    if shape != prompt.shape:
        got = f"the shape {list(shape)}" if shape is not None else type(output).__name__
        raise ValueError(f"{rule}; {name} returned {got}. Broadcast or reshape the result of `__call__`.")
    if dtype != prompt.dtype:
        raise ValueError(
            f"{rule}; {name} returned {dtype} for {prompt.dtype}. Cast the result of `__call__`, or an array in "
            "it, with `.astype(tokens.dtype)`."
        )


def check_fused(encoder: Any, mean: Array, tokens: Array) -> Array:
    """Return the result of `fused_mean`; raise `ValueError` unless it has the shape and type of the tokens."""
    shape, dtype = getattr(mean, "shape", None), getattr(mean, "dtype", None)
    if (shape, dtype) != (tokens.shape, tokens.dtype):
        raise ValueError(
            f"`fused_mean` must return the shape and type of `tokens`, {list(tokens.shape)} of {tokens.dtype}; "
            f"{type(encoder).__name__} returned {shape} of {dtype}. Compare it with wgf.encoders.plain_mean."
        )
    return mean


def particle_of(encoder: Any) -> PyTree[jax.ShapeDtypeStruct] | None:
    """The shapes of one particle, or None where they are unknown.

    They are unknown if the encoder draws no particles, because these are made elsewhere. They are also unknown if the
    encoder's own sizes are traced, as under `jax.jit` of a model.
    """
    try:
        return jax.eval_shape(lambda: encoder.sample(jax.random.key(0), ()))
    except NotImplementedError:
        return None
    except TypeError as error:
        if is_traced(*jax.tree.leaves(encoder)):
            return None
        # JAX's own words speak of a function here, not of the user's.
        reason = "returned other leaves" if "traced" in str(error) else f"raised {type(error).__name__}: {error}"
        raise ValueError(
            f"`encoder` must draw particles that hold arrays alone; `sample` of {type(encoder).__name__} "
            f"{reason.rstrip('.')}. Keep functions in the encoder: `eqx.partition(mlp, eqx.is_array)`."
        ) from error


# The shapes of particles do not depend on numbers. A trace of `sample` takes milliseconds.
_remembered = functools.lru_cache(maxsize=64)(particle_of)
