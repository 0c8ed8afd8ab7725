"""How the initial law is sampled: independent, quasi-random, symmetric."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._backend.compiled import compiled
from .._backend.draws import draw_flat
from .._backend.precision import Module
from .._checks import ENCODER, at_least, instance, shown
from .._random import purpose
from ..encoders import AbstractEncoder
from ..encoders._checks import particle_of


class AbstractSampling(Module):
    """A way to place `width` particles whose coordinates are standard normal."""

    @abc.abstractmethod
    def __call__(self, key: PRNGKeyArray, encoder: AbstractEncoder, width: int) -> PyTree[Array]:
        """Particles of the encoder with leading axis `[width]`, each standard normal."""


class Independent(AbstractSampling):
    """Independent standard normal particles: the assumption of the theorems.

    Error of an average: O(M^(−1/2)), in any particle dimension. Best for a study of the finite model itself.
    """

    def __call__(self, key: PRNGKeyArray, encoder: AbstractEncoder, width: int) -> PyTree[Array]:
        """Draw `width` independent particles."""
        width, (dim, unravel) = at_least("width", width, 1), particle_space(encoder)
        return jax.vmap(unravel)(draw_flat(jax.random.normal, purpose(key, "measures.Independent"), (width, dim)))


class Sobol(AbstractSampling):
    r"""Scrambled Sobol points, mapped to normals by the inverse distribution function, coordinate by coordinate.

    Error of an average: near O(1/M) for smooth functions of few coordinates. Works under `jit` and `vmap`; the points
    are made on the host.

    Good values: `width` a power of two, and particles of low dimension or in large numbers. In 55 dimensions there is
    no gain below 10³ points.

    **Source:** A. B. Owen, *Scrambling Sobol' and Niederreiter–Xing points*, J. Complexity 14 (1998);
    `scipy.stats.qmc`.
    """

    @compiled
    def __call__(self, key: PRNGKeyArray, encoder: AbstractEncoder, width: int) -> PyTree[Array]:
        """Draw `width` scrambled Sobol points."""
        width, (dim, unravel) = at_least("width", width, 1), particle_space(encoder)
        if dim > (most := scipy.stats.qmc.Sobol.MAXDIM):
            raise ValueError(
                f"`sampling` by Sobol takes particles of at most {most} numbers; got {dim}. Use "
                "wgf.measures.Independent()."
            )
        dtype = jnp.result_type(float)
        out = jax.ShapeDtypeStruct((width, dim, dtype.itemsize // 4), jnp.uint32)

        def points(words):
            sobol = scipy.stats.qmc.Sobol(dim, scramble=True, rng=np.random.default_rng(np.asarray(words)))
            sample = sobol.random_base2(math.ceil(math.log2(width)))[:width]
            # In finite precision a scrambled point can be 0 or 1, whose normal quantile is infinite.
            normal = scipy.special.ndtri(np.clip(sample, 2.0**-33, 1 - 2.0**-33)).astype(dtype)
            return normal.view(np.uint32).reshape(out.shape)

        key = purpose(key, "measures.Sobol")
        words = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
        # As words: float64 would not pass where `jax.enable_x64` holds for the caller's thread alone.
        bits = jax.pure_callback(points, out, words, vmap_method="sequential")
        bits = bits[..., 0] if dtype.itemsize == 4 else bits
        return jax.vmap(unravel)(jax.lax.bitcast_convert_type(bits, dtype))


class SignPairs(AbstractSampling):
    r"""Pairs (θ, ιθ) with the encoder's reflection ι: the average of g starts at exactly 0.

    Half the particles are drawn by `base`; the others are their reflections. All integrals of odd functions of the
    reflected coordinates are exact, so the error starts at 0 and is halved early in training. Late in training even
    functions dominate, and for them there are half as many samples. Pairs are therefore best around
    [`wgf.measures.Sobol`][], or, for few particles, within [`wgf.measures.Whitened`][].

    **Arguments:**

    - `base`: the sampling of the first particle of each pair.

    **Raises:** `ValueError` if the encoder has no reflection or the width is odd.
    """

    base: AbstractSampling = Independent()

    def __check_init__(self):
        _check_base(self.base)

    def __call__(self, key: PRNGKeyArray, encoder: AbstractEncoder, width: int) -> PyTree[Array]:
        """Draw `width / 2` pairs; particles 2j and 2j + 1 are reflections of each other."""
        if not encoder.is_odd:
            raise ValueError(
                f"`sampling` by sign pairs takes an encoder with a reflection; got {type(encoder).__name__}. Derive it "
                "from wgf.encoders.AbstractOddEncoder."
            )
        if at_least("width", width, 1) % 2:
            raise ValueError(f"`width` must be even for sampling by sign pairs; got {width}.")
        half = self.base(key, encoder, width // 2)
        return jax.tree.map(_interleave, half, encoder.reflect(half))


class SignOrbits(AbstractSampling):
    r"""Orbits of 2^n particles: all combinations of signs of n sets of coordinates.

    All integrals of functions that are odd in one of the sets are exact. Each particle of the base yields 2^n
    particles, so an added set helps only if most of the variance is odd in it. The encoder needs no reflection.

    **Arguments:**

    - `base`: the sampling of the first particle of each orbit.
    - `flips`: for each set, the prefixes of its coordinates' names ([`wgf.measures.coordinate_names`][]), e.g.
      `(("f.value", "h.w_out"), ("f.key", "h.w_in"))`.

    **Raises:** `ValueError` if a set names no coordinate or the width is not a multiple of 2^n.
    """

    flips: tuple[tuple[str, ...], ...] = eqx.field(static=True)
    base: AbstractSampling = Independent()

    def __check_init__(self):
        _check_base(self.base)
        flips = self.flips
        if not isinstance(flips, tuple) or not all(
            isinstance(flip, tuple) and flip and all(isinstance(name, str) for name in flip) for flip in flips
        ):
            raise ValueError(
                f'`flips` must be sets of names of coordinates, e.g. (("f.value", "h.w_out"),); got {shown(flips)}.'
            )

    def __call__(self, key: PRNGKeyArray, encoder: AbstractEncoder, width: int) -> PyTree[Array]:
        """Draw `width / 2^n` orbits; the members of an orbit are adjacent."""
        size = 2 ** len(self.flips)
        if at_least("width", width, 1) % size:
            raise ValueError(f"`width` must be a multiple of {size} for sampling by these sign orbits; got {width}.")
        _, unravel = particle_space(encoder)
        names = coordinate_names(encoder)
        particles = _vectors(self.base(key, encoder, width // size))
        for flip in self.flips:
            flipped = np.array([name.startswith(flip) for name in names])
            if not flipped.any():
                raise ValueError(f"`flips` must name coordinates of the encoder, {shown(names)}; got {shown(flip)}.")
            particles = _interleave(particles, particles * np.where(flipped, -1, 1).astype(particles.dtype)[None])
        return jax.vmap(unravel)(particles)


class Whitened(AbstractSampling):
    r"""A sample whose second moments are exact: \( \frac1M \sum_j \theta_j \theta_j^\top = I \).

    The points x_j of `base` become \( C^{-1/2} x_j \), where C is their matrix of second moments. All integrals of
    quadratic forms are then exact. The particles' law differs from the normal law by O(P/M), as that of any sample
    does, and so do the integrals of other functions.

    **Arguments:**

    - `base`: the sampling whose points are whitened. Pairs and orbits are preserved.

    **Raises:** `ValueError` if the width is below 4 P.

    Good values: around `SignPairs(Sobol())` for few particles. benchmarks/work_precision.py draws particles of 55
    dimensions jointly over eight stage times. There whitening removes 11 % of the variance of the limit's outputs with
    1,024 particles, and 2 % with 4,096.
    """

    base: AbstractSampling = Independent()

    def __check_init__(self):
        _check_base(self.base)

    def __call__(self, key: PRNGKeyArray, encoder: AbstractEncoder, width: int) -> PyTree[Array]:
        """Draw `width` particles by `base` and whiten them."""
        dim, unravel = particle_space(encoder)
        if at_least("width", width, 1) < 4 * dim:
            raise ValueError(f"`width` must be at least 4 P = {4 * dim} for a whitened sample; got {width}.")
        points = _vectors(self.base(key, encoder, width))
        values, vectors = jnp.linalg.eigh(points.T @ points / width)
        return jax.vmap(unravel)(points @ (vectors / jnp.sqrt(values)[None]) @ vectors.T)


def _check_base(base: AbstractSampling) -> None:
    instance("base", base, AbstractSampling, "a sampling, e.g. wgf.measures.Sobol()")


def _interleave(first: Array, second: Array) -> Array:
    """The rows of both, alternating."""
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])


def _vectors(particles: PyTree[Array]) -> Array:
    """Particles with leading axis `[width]` as vectors `[width, P]`."""
    return jax.vmap(lambda particle: ravel_pytree(particle)[0])(particles)


def particle_space(encoder: AbstractEncoder) -> tuple[int, eqx.Partial]:
    """The dimension P of the encoder's particles, and the map from a vector `[P]` to a particle."""
    shape = particle_of(instance("encoder", encoder, AbstractEncoder, ENCODER))
    if shape is None:
        raise ValueError(f"`encoder` must have a `sample`, to say what a particle is; got {type(encoder).__name__}.")
    vector, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.result_type(float)), shape))
    if vector.size == 0:
        raise ValueError("`encoder` must have particles with at least one parameter; got none.")
    return vector.size, eqx.Partial(unravel)


def coordinate_names(encoder: AbstractEncoder) -> list[str]:
    """The name of each coordinate of [`wgf.measures.coordinates`][], such as `f.value[0,1]`."""
    particle = particle_of(instance("encoder", encoder, AbstractEncoder, ENCODER))
    leaves, _ = jax.tree_util.tree_flatten_with_path(particle)
    return [
        jax.tree_util.keystr(path).lstrip(".") + (f"[{','.join(map(str, index))}]" if index else "")
        for path, leaf in leaves
        for index in np.ndindex(leaf.shape)
    ]
