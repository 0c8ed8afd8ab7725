"""Initial laws ρ₀, which give the particles of the finite model and of the limit."""

import abc
import dataclasses
import math
from collections.abc import Iterator, Sequence
from functools import partial

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from .._backend.compat import is_traced
from .._checks import (
    ENCODER,
    at_least,
    check_memory,
    finite,
    flag,
    holds,
    instance,
    numbers,
    on_host,
    random_key,
    shown,
)
from .._display.text import Brief, is_array, kind, number
from .._random import purpose
from ..encoders import AbstractEncoder
from ..encoders._checks import particle_of
from ..solvers._equal_eighths import EqualEighths
from ._eulerian import Eulerian
from ._layered import Layered
from ._sampling import AbstractSampling, Independent, particle_space
from ._spectral import Rule, Spectral, quadrature
from ._staged import Staged, stage_nodes


class AbstractInitialLaw(Brief):
    """A law ρ₀ of particles, the same at every depth."""

    def _facts(self) -> Iterator[str]:
        """The fields, each with its number or its type."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            yield f"{field.name} {number(value) if is_array(value) and not value.shape else kind(value)}"

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, width: int) -> PyTree[Array]:
        """Draw `width` particles, leading axis `[width]`."""

    def _numbers(self) -> int:
        """The numbers in a particle, or 1 if they are unknown."""
        encoder = getattr(self, "encoder", None)
        return 1 if encoder is None else max(1, sum(leaf.size for leaf in jax.tree.leaves(particle_of(encoder))))

    def _checked(self, key: PRNGKeyArray, width: int) -> tuple[PRNGKeyArray, int]:
        """The arguments of `sample`; raise `ValueError` if they are no key and no width whose particles fit."""
        width = at_least("width", width, 1)
        check_memory(each=self._numbers(), width=width)
        return random_key("key", key), width

    def layered(self, depth: int, width: int, key: PRNGKeyArray) -> Layered:
        """The measure of a finite model: an independent sample in each of `depth` layers.

        **Arguments:** `depth` L ≥ 1, `width` M ≥ 1, a random `key`.

        **Raises:** `ValueError` if a count is below 1.
        """
        depth, width = at_least("depth", depth, 1), at_least("width", width, 1)
        check_memory(each=self._numbers(), depth=depth, width=width)
        return Layered(_samples(self, random_key("key", key), "measures.layered", depth, width))

    def spectral(self, nodes: int, width: int, key: PRNGKeyArray, *, rule: Rule = "gauss") -> Spectral:
        """The measure of the limit: one sample, shared by all depth nodes, so that the flow stays smooth in depth.

        **Arguments:** `nodes` ≥ 1 (2 for `"lobatto"`), `width` M ≥ 1, a random `key`, the quadrature `rule`.

        **Raises:** `ValueError` if a count is too small or the rule unknown.
        """
        nodes, width = at_least("nodes", nodes, 1), at_least("width", width, 1)
        quadrature(nodes, rule)
        check_memory(each=self._numbers(), nodes=nodes, width=width)
        return Spectral(_shared_sample(self, random_key("key", key), nodes, width), rule=rule)

    def staged(
        self,
        width: int,
        key: PRNGKeyArray,
        *,
        solver: diffrax.AbstractERK = EqualEighths(),  # noqa: B008 (an immutable module)
        steps: int = 1,
        joint: bool = False,
    ) -> Staged:
        """The measure of the limit, with a separate sample at each stage time of a Runge–Kutta depth solve.

        The model is then `AveragedODE(encoder, measure, solver=solver, steps=steps)`.

        **Arguments:**

        - `width`: the number M ≥ 1 of particles at each stage time.
        - `key`: a random key.
        - `solver`: the Runge–Kutta method. The default has the least error for a given number of particles, because
          its stages have equal weights; see [`wgf.measures.Staged`][].
        - `steps`: its number of steps.
        - `joint`: draw one sample for all stage times together, and cut it into runs of M particles. The sample is then
          jointly quasi-random over (node, particle). This is best for [`wgf.measures.Sobol`][]. If the stages have
          equal weights it is also best for [`wgf.measures.Whitened`][], which then whitens all nodes together.

        **Raises:** `ValueError` if a count is too small or the solver does not fit.
        """
        width, steps = at_least("width", width, 1), at_least("steps", steps, 1)
        nodes = len(stage_nodes(solver, steps)[0])
        check_memory(each=self._numbers() * nodes // steps, width=width, steps=steps)
        key = random_key("key", key)
        if flag("joint", joint):
            particles = _joint_sample(self, key, nodes, width)
        else:
            particles = _samples(self, key, "measures.staged", nodes, width)
        return Staged(particles, solver=solver, steps=steps)


@eqx.filter_jit
def _samples(law: AbstractInitialLaw, key: PRNGKeyArray, use: str, count: int, width: int) -> PyTree[Array]:
    """Independent samples, `[count, width]`."""
    return jax.vmap(lambda k: law.sample(k, width))(jax.random.split(purpose(key, use), count))


@eqx.filter_jit
def _shared_sample(law: AbstractInitialLaw, key: PRNGKeyArray, count: int, width: int) -> PyTree[Array]:
    """One sample, repeated, `[count, width]`."""
    sample = law.sample(purpose(key, "measures.spectral"), width)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), sample)


@eqx.filter_jit
def _joint_sample(law: AbstractInitialLaw, key: PRNGKeyArray, count: int, width: int) -> PyTree[Array]:
    """One joint sample of all particles, `[count, width]`."""
    pool = law.sample(purpose(key, "measures.staged.joint"), count * width)
    return jax.tree.map(lambda leaf: leaf.reshape(count, width, *leaf.shape[1:]), pool)


class Gaussian(AbstractInitialLaw):
    r"""\( \rho_0 = N(0, s^2 I) \) over all coordinates of the encoder's particles.

    **Arguments:**

    - `encoder`: the encoder, which sets the structure of the particles.
    - `scale`: the standard deviation s > 0 of every coordinate. Good values: 0.5 to 1. Or one for each array of a
      particle: a PyTree of numbers in the structure of `encoder.sample`, or in that of a part of it from the top, e.g.
      `Pair(f=Head(value=0.7, key=1.5, query=1.5), h=0.7)`.
    - `sampling`: how particles are placed: [`wgf.measures.Independent`][] (the assumption of the theorems),
      [`wgf.measures.Sobol`][], [`wgf.measures.SignPairs`][] and [`wgf.measures.SignOrbits`][] around either, and
      [`wgf.measures.Whitened`][] around any. The limit's error is least with `Whitened(SignPairs(Sobol()))` for few
      particles and `SignPairs(Sobol())` for many, both drawn by `staged(..., joint=True)`.

    **Raises:** `ValueError` if the scale is not positive.

    **Source:** arXiv:2410.23610, section 2.3 (particles drawn independently from ρ₀).
    """

    encoder: AbstractEncoder
    scale: PyTree[Array]
    sampling: AbstractSampling

    def __init__(
        self,
        encoder: AbstractEncoder,
        scale: PyTree[ArrayLike] = 1.0,
        sampling: AbstractSampling = Independent(),  # noqa: B008 (an immutable module)
    ):
        self.encoder = instance("encoder", encoder, AbstractEncoder, ENCODER)
        self.scale = _check_scale(scale, self.encoder)
        self.sampling = instance("sampling", sampling, AbstractSampling, "a sampling, e.g. wgf.measures.Sobol()")

    def sample(self, key: PRNGKeyArray, width: int) -> PyTree[Array]:
        """Draw `width` particles."""
        key, width = self._checked(key, width)
        return _scaled(self.scale, self.sampling(key, self.encoder, width))

    def eulerian(
        self, nodes: int, cells: Sequence[int], lower: ArrayLike, upper: ArrayLike, *, rule: Rule = "gauss"
    ) -> Eulerian:
        r"""The law on a grid: the exact mass \( \int_{C_j} \rho_0 \) of each cell, for the law conditioned on the box.

        **Arguments:**

        - `nodes`: the number of depth nodes. All have the same weights.
        - `cells`: the number of cells along each of the encoder's P ≤ 3 coordinates.
        - `lower`, `upper`: the ends of the box: one number for all coordinates, or `[P]` in the order of
          [`wgf.measures.coordinates`][]. Good values: ±4 to ±5 times the scale.
        - `rule`: the quadrature in depth.

        **Returns:** [`wgf.measures.Eulerian`][].

        **Raises:** `ValueError` if a shape does not fit or `scale` is not one number.
        """
        dim, unravel = particle_space(self.encoder)
        if not isinstance(cells, Sequence | np.ndarray) or len(cells) != dim:
            raise ValueError(f"`cells` must count cells along each of {dim} coordinates; got {shown(cells)}.")
        if not eqx.is_array(self.scale):
            raise ValueError(f"`scale` must be one number for a law on a grid; got {shown(self.scale)}.")
        low, high = (
            _check_ends(name, end, dim).astype(self.scale.dtype) for name, end in (("lower", lower), ("upper", upper))
        )
        cells = tuple(at_least("cells", count, 2) for count in cells)
        nodes = at_least("nodes", nodes, 1)
        check_memory(nodes=nodes, cells=math.prod(cells))
        quadrature(nodes, rule)
        masses = _normal_masses(low / self.scale, high / self.scale, cells)
        weights = jnp.broadcast_to(masses, (nodes, *cells))
        return Eulerian(unravel(low), unravel(high), weights, rule=rule)


class EncoderLaw(AbstractInitialLaw):
    """The law of the encoder's own `sample`, scaled by `scale`, with independent particles.

    Use it for encoders whose `sample` is not normal, e.g. uniform on a sphere. The scale may be one number, or one for
    each array of a particle, as in [`wgf.measures.Gaussian`][].

    **Raises:** `ValueError` if the scale is not positive.
    """

    encoder: AbstractEncoder
    scale: PyTree[Array]

    def __init__(self, encoder: AbstractEncoder, scale: PyTree[ArrayLike] = 1.0):
        self.encoder = instance("encoder", encoder, AbstractEncoder, ENCODER)
        self.scale = _check_scale(scale, self.encoder)

    def sample(self, key: PRNGKeyArray, width: int) -> PyTree[Array]:
        """Draw `width` particles by `encoder.sample`."""
        key, width = self._checked(key, width)
        return _scaled(self.scale, self.encoder.sample(key, (width,)))


def _check_scale(scale: PyTree[ArrayLike], encoder: AbstractEncoder) -> PyTree[Array]:
    """One positive number, or one for each array of a particle."""
    if scale is None or isinstance(scale, list) or jax.tree_util.all_leaves([scale]):
        return _positive_number(scale)  # pyright: ignore[reportArgumentType] (it refuses what is no number)
    particle = particle_of(encoder)
    try:
        each = jax.tree.broadcast(scale, particle)
    except ValueError as error:
        raise ValueError(
            f"`scale` must be one number, or one for each array of a particle, in the structure of {particle}; got "
            f"{shown(scale)}."
        ) from error
    return jax.tree.map(_positive_number, each)


def _positive_number(scale: ArrayLike) -> Array:
    scale = numbers("scale", scale).astype(jnp.result_type(float))
    if scale.shape != ():
        raise ValueError(f"`scale` must be one number; got an array of shape {scale.shape}.")
    known = on_host(scale)
    got = None if is_traced(scale) else scale.tolist()
    return holds(scale, ((known > 0) & (known < np.inf)).all(), "`scale` must be positive and finite", got)


def _check_ends(argument: str, end: ArrayLike, dim: int) -> Array:
    end = finite(argument, end)
    if end.shape not in ((), (dim,)):
        raise ValueError(f"`{argument}` must be a number or have shape [P] = [{dim}]; got shape {end.shape}.")
    return jnp.broadcast_to(end, (dim,))


@partial(jax.jit, static_argnums=2)
def _normal_masses(
    lower: Float[Array, " dim"], upper: Float[Array, " dim"], cells: tuple[int, ...]
) -> Float[Array, "*cells"]:
    """The masses of a grid's cells under a standard normal law conditioned on the grid's box."""
    masses = jnp.ones((), lower.dtype)
    for start, end, count in zip(lower, upper, cells, strict=True):
        edges = jnp.linspace(start, end, count + 1)
        a, b = edges[:-1], edges[1:]
        # Reflected to the tail where both distribution functions are small, to avoid cancellation.
        a, b = jnp.where(a > 0, -b, a), jnp.where(a > 0, -a, b)
        along = ndtr(b) - ndtr(a)
        masses = masses[..., None] * (along / jnp.sum(along)).reshape(*(1,) * masses.ndim, -1)
    return masses


def _scaled(scale: PyTree[Array], particles: PyTree[Array]) -> PyTree[Array]:
    each = jax.tree.map(lambda _: scale, particles) if eqx.is_array(scale) else scale
    return jax.tree.map(lambda leaf, own: own.astype(leaf.dtype) * leaf, particles, each)
