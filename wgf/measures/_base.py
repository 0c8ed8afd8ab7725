"""The measure over depth: atoms θ_ij with depth weights w_i and particle weights a_ij."""

import abc
import math
from collections.abc import Iterator
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._backend.compat import is_traced
from .._checks import check_float, finite, floats, holds, numbers, on_host, shown
from .._display.text import Brief, dimension, memory, sizes

_Measure = TypeVar("_Measure", bound="AbstractMeasure")


class AbstractMeasure(Brief):
    r"""A measure \( \rho(d\theta, t)\,dt = \sum_i w_i \sum_j a_{ij} \delta_{\theta_{ij}} \), uniform in depth t ∈
    [0, 1].

    `particles` is a PyTree of arrays with leading axes `[depth, width]`. `weights` holds the a_ij, `[depth, width]`,
    and each row sums to 1. A particle of weight zero is a tracer: it feels the velocity field and adds nothing to it.

    A measure's `repr` is one line, and `summary()` has several. `equinox.tree_pformat` gives its whole structure.

    **Source:** arXiv:2410.23610, section 3.1.
    """

    particles: eqx.AbstractVar[PyTree[Array]]
    weights: eqx.AbstractVar[Float[Array, "depth width"]]

    def _facts(self) -> Iterator[str]:
        yield self._size()
        yield memory(self)

    def _size(self) -> str:
        """The number of particles and their dimension."""
        dim = dimension(self.particles, len(getattr(self.weights, "shape", ())))
        return f"{sizes(self.weights)} particles of dimension {dim}"

    @property
    @abc.abstractmethod
    def depths(self) -> Float[Array, " depth"]:
        """The depths t_i of the atoms, in [0, 1]."""

    @property
    @abc.abstractmethod
    def depth_weights(self) -> Float[Array, " depth"]:
        """The depth weights w_i, with sum 1."""

    @abc.abstractmethod
    def at(self, depth: ArrayLike) -> tuple[PyTree[Array], Float[Array, " width"]]:
        """The law at one depth t: particles with leading axis `[width]`, and their weights.

        Every depth in this library follows one rule. A depth up to 1e-6 outside [0, 1] is clipped, to allow for
        rounding. A traced depth (under `jit` or `vmap`) is always clipped.

        **Raises:** `ValueError` if t is not traced and is farther outside [0, 1], or NaN.
        """

    @property
    def masses(self) -> Float[Array, "depth width"]:
        """The mass of every atom, w_i a_ij, with sum 1."""
        return self.depth_weights[:, None] * self.weights

    @property
    def width(self) -> int:
        """The number M of particles at each depth."""
        return self.weights.shape[1]

    def second_moment(self) -> Float[Array, ""]:
        r"""\( \int_0^1 \int \|\theta\|^2 \rho(d\theta, t)\,dt = \sum_{ij} w_i a_{ij} \|\theta_{ij}\|^2 \)."""
        return jnp.sum(self.masses * square_norms(self.particles, self.weights))

    def check(self) -> None:
        """Raise `ValueError` unless particles share one type, float32 or float64, and have the axes of the weights."""
        particles, weights = self.particles, self.weights
        shapes = {leaf.shape[:2] for leaf in jax.tree.leaves(particles)}
        if shapes != {weights.shape}:
            raise ValueError(
                f"`particles` must have the leading axes [depth, width] of the weights, {weights.shape}; got "
                f"{sorted(shapes)}. Select one model of a solution with `solution.model_at(index)`."
            )
        _check_one_type(particles)
        for leaf in jax.tree.leaves(particles):
            check_float("particles", leaf.dtype)

    def with_particles(self: _Measure, particles: PyTree[Array]) -> _Measure:
        """The same measure with other particles of the same structure and shapes."""
        return eqx.tree_at(lambda measure: measure.particles, self, particles)


def square_norms(particles: PyTree[Array], weights: Float[Array, "depth width"]) -> Float[Array, "depth width"]:
    """‖θ_ij‖² of every particle, summed over its leaves."""
    leaves = jax.tree.leaves(particles)
    return sum((_sum_trailing(leaf**2) for leaf in leaves), jnp.zeros_like(weights))


def _sum_trailing(leaf: Array) -> Array:
    return jnp.sum(leaf, axis=tuple(range(2, leaf.ndim)))


def coordinates(particles: PyTree[Array]) -> Float[Array, "*shape dim"]:
    """Particles with leading axes `[depth, width]` as vectors `[depth, width, P]`, leaf by leaf.

    Those of one depth, e.g. of `measure.at(t)`, need an axis of depth: `jax.tree.map(lambda x: x[None], particles)`.

    **Raises:** `ValueError` unless all arrays have the same two leading axes.
    """
    leaves = _leaves("particles", particles)
    if len({leaf.shape[:2] for leaf in leaves}) > 1:
        raise ValueError(
            f"`particles` must hold arrays of one depth and width, [depth, width, ...]; got shapes "
            f"{shown([leaf.shape for leaf in leaves])}. Give particles of one depth an axis: `leaf[None]`."
        )
    return jnp.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], axis=-1)


def _leaves(argument: str, particles: PyTree[ArrayLike]) -> list[Array]:
    """The arrays of particles; raise `ValueError` unless there are any, and all have axes `[depth, width, ...]`."""
    leaves = [numbers(argument, leaf) for leaf in jax.tree.leaves(particles)]
    if not leaves or any(leaf.ndim < 2 for leaf in leaves):
        shapes = [leaf.shape for leaf in leaves]
        raise ValueError(f"`{argument}` must hold arrays with axes [depth, width, ...]; got shapes {shown(shapes)}.")
    return leaves


def at_coordinates(vectors: Float[Array, "*shape dim"], like: PyTree[Array]) -> PyTree[Array]:
    """The inverse of [`wgf.measures.coordinates`][]: particles with the structure of `like`.

    **Arguments:**

    - `vectors`: `[depth, width, P]`.
    - `like`: particles with any two leading axes.

    **Returns:** particles with the structure and trailing axes of `like`, and the leading axes of `vectors`.
    """
    _leaves("like", like)
    leaves, structure = jax.tree.flatten(like)
    shapes = [leaf.shape[2:] for leaf in leaves]
    sizes = [math.prod(shape) for shape in shapes]
    vectors = numbers("vectors", vectors)
    if vectors.ndim < 1 or vectors.shape[-1] != sum(sizes):
        raise ValueError(
            f"`vectors` must have {sum(sizes)} coordinates along the last axis, as `like`; got shape {vectors.shape}."
        )
    parts = jnp.split(vectors, np.cumsum(sizes)[:-1], axis=-1)
    shaped = [part.reshape(*vectors.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]
    return jax.tree.unflatten(structure, shaped)


def check_particles(particles: PyTree[ArrayLike], axes: str) -> tuple[PyTree[Array], tuple[int, int]]:
    """Return the particles as arrays with their two leading sizes; raise `ValueError` if sizes or types differ."""
    particles = jax.tree.map(lambda leaf: floats("particles", leaf), particles)
    shapes = {leaf.shape[:2] for leaf in jax.tree.leaves(particles)}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 2 or 0 in shape:
        found = sorted({leaf.shape for leaf in jax.tree.leaves(particles)})
        raise ValueError(
            f"`particles` must be arrays that share leading axes {axes} and are not empty; got shapes {found}."
        )
    _check_one_type(particles)
    return particles, shape


def _check_one_type(particles: PyTree[Array]) -> None:
    types = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(particles)})
    if len(types) > 1:
        raise ValueError(f"`particles` must be arrays of one type; got {types}. Cast them with `.astype`.")


def check_weights(weights: ArrayLike | None, particles: PyTree[Array]) -> Float[Array, "depth width"]:
    """Return weights `[depth, width]`, uniform by default; raise unless they are >= 0 and each row sums to 1."""
    leaves = jax.tree.leaves(particles)
    shape, dtype = leaves[0].shape[:2], jnp.result_type(*leaves)
    if weights is None:
        if is_traced(*leaves):
            return jnp.full(shape, 1 / shape[1], dtype)
        # Made on the host, so that nothing is compiled per shape.
        return jax.device_put(np.full(shape, 1 / shape[1], dtype))
    weights = finite("weights", weights).astype(dtype)
    if weights.shape not in (shape, shape[1:]):
        raise ValueError(
            f"`weights` must have shape [width] = {shape[1:]} or [depth, width] = {shape}; got {weights.shape}."
        )
    weights = jnp.broadcast_to(weights, shape)
    known = on_host(weights)
    sums = known.sum(axis=1)
    valid = (known >= 0).all() & (abs(sums - 1) < 1e-4).all()
    got = None if is_traced(known) else f"least weight {float(known.min())}, sums {sums.tolist()}"
    return holds(weights, valid, "`weights` must be non-negative with sum 1 at each depth (divide by their sum)", got)
