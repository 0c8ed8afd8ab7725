"""Whether an encoder, its particles and the prompts fit together: by shapes and types alone, before compilation."""

from typing import Any

import jax
from jaxtyping import Array, Float, PyTree

from .._backend.compat import is_traced
from .._checks import check_types


def check_arguments(encoder: Any, particles: PyTree[Array], weights: Float[Array, " width"], tokens: Array) -> None:
    """Raise `ValueError` unless the arguments of an encoder's mean are of one type and the particles are its own."""
    check_types(tokens, particles, weights)
    axes = {leaf.shape[:1] for leaf in jax.tree.leaves(particles)}
    if not axes <= {weights.shape}:
        raise ValueError(
            f"`particles` must have the leading axis [width] of `weights`, {weights.shape}; got {sorted(axes)}. Give a "
            "single particle as `jax.tree.map(lambda x: x[None], particle)`."
        )
    check_particles(encoder, particles, 1)
    dim = getattr(encoder, "token_dim", tokens.shape[1])
    if not is_traced(dim) and dim != tokens.shape[1]:
        raise ValueError(
            f"`tokens` must have the token dimension D of {type(encoder).__name__}, {dim}; got {tokens.shape[1]}. Make "
            "the encoder with `prompts.token_dim`."
        )


def check_particles(encoder: Any, particles: PyTree[Array], axes: int) -> None:
    """Raise `ValueError` unless particles with so many leading axes have the structure and shapes of `sample`'s."""
    own = particle_of(encoder)
    if own is None:
        return
    shapes, found = jax.tree.map(lambda leaf: leaf.shape, own), jax.tree.map(lambda leaf: leaf.shape[axes:], particles)
    # A named tuple equals a tuple.
    if shapes != found or jax.tree.structure(own) != jax.tree.structure(particles):
        raise ValueError(
            f"`particles` must have the structure and shapes of the encoder's own, {shapes}; got {found} behind "
            f"{axes} leading axes. Draw them by `encoder.sample`, or take their encoder."
        )


def check_call(encoder: Any, particles: PyTree[Array], tokens: Array) -> None:
    """Raise `ValueError` unless the encoder maps a prompt `[D, N+1]` to another of its shape and type.

    Nothing is compiled. Cost: one trace of `__call__`, some milliseconds.
    """
    name = type(encoder).__name__
    particle = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), particles)
    prompt = jax.ShapeDtypeStruct(tokens.shape[1:], tokens.dtype)
    rule = f"`encoder` must map a prompt [D, N+1] = {list(prompt.shape)} to another of its shape and type"
    try:
        output = jax.eval_shape(lambda particle, tokens: encoder(particle, tokens), particle, prompt)
    except (TypeError, ValueError, IndexError) as error:
        if str(error).startswith("`"):  # It is in this form already.
            raise
        raise ValueError(f"{rule}; {name} raised {type(error).__name__}: {error}") from error
    shape, dtype = getattr(output, "shape", None), getattr(output, "dtype", None)
    if shape != prompt.shape:
        got = f"the shape {list(shape)}" if shape is not None else type(output).__name__
        raise ValueError(f"{rule}; {name} returned {got}. Broadcast or reshape what `__call__` returns.")
    if dtype != prompt.dtype:
        raise ValueError(
            f"{rule}; {name} returned {dtype} for {prompt.dtype}. Cast what `__call__` returns, or an array in it, "
            "by `.astype(tokens.dtype)`."
        )


def check_fused(encoder: Any, mean: Array, tokens: Array) -> Array:
    """Return what an encoder's `fused_mean` gave; raise `ValueError` unless it has the shape and type of the tokens."""
    shape, dtype = getattr(mean, "shape", None), getattr(mean, "dtype", None)
    if (shape, dtype) != (tokens.shape, tokens.dtype):
        raise ValueError(
            f"`fused_mean` must return the shape and type of `tokens`, {list(tokens.shape)} of {tokens.dtype}; that of "
            f"{type(encoder).__name__} returned {shape} of {dtype}. Compare it to wgf.encoders.plain_mean."
        )
    return mean


def particle_of(encoder: Any) -> PyTree[jax.ShapeDtypeStruct] | None:
    """The shapes of one particle.

    None of an encoder that draws none, whose particles are made elsewhere; and of one whose own sizes are traced, as
    under `jax.jit` of a model.
    """
    try:
        return jax.eval_shape(lambda: encoder.sample(jax.random.key(0), ()))
    except NotImplementedError:
        return None
    except TypeError:
        if is_traced(*jax.tree.leaves(encoder)):
            return None
        raise
