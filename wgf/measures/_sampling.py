"""How the initial law is sampled: independent, quasi-random, symmetric."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray, PyTree
from scipy.stats import norm, qmc

from ..encoders import AbstractEncoder, AbstractOddEncoder


class AbstractSampling(eqx.Module):
    """A way to place `width` particles whose coordinates are standard normal."""

    @abc.abstractmethod
    def __call__(self, key: PRNGKeyArray, encoder: AbstractEncoder, width: int) -> PyTree[Array]:
        """Particles of the encoder with leading axis `[width]`, each standard normal."""


class Independent(AbstractSampling):
    """Independent standard normal particles. Error of an average: O(M^(−1/2)), at any particle dimension."""

    def __call__(self, key: PRNGKeyArray, encoder: AbstractEncoder, width: int) -> PyTree[Array]:
        """Draw `width` independent particles."""
        dim, unravel = particle_space(encoder)
        return jax.vmap(unravel)(jax.random.normal(key, (width, dim)))


class Sobol(AbstractSampling):
    r"""Scrambled Sobol points, mapped to normals by the inverse distribution function, coordinate by coordinate.

    Error of an average: near O(1/M) for smooth functions of few coordinates. Best with `width` a power of two, and with
    particles of low dimension: in 55 dimensions little is gained below 10³ points. Works under `jit` and `vmap` (the
    points are made on the host).

    **Source:** A. B. Owen, *Scrambling Sobol' and Niederreiter–Xing points*, J. Complexity 14 (1998);
    `scipy.stats.qmc`.
    """

    def __call__(self, key: PRNGKeyArray, encoder: AbstractEncoder, width: int) -> PyTree[Array]:
        """Draw `width` scrambled Sobol points."""
        dim, unravel = particle_space(encoder)
        out = jax.ShapeDtypeStruct((width, dim), jnp.result_type(float))

        def points(words):
            sobol = qmc.Sobol(dim, scramble=True, rng=np.random.default_rng(np.asarray(words)))
            sample = sobol.random_base2(math.ceil(math.log2(width)))[:width]
            # Scrambled points are open at neither end in finite precision: keep the normals finite.
            return norm.ppf(np.clip(sample, 2.0**-33, 1 - 2.0**-33)).astype(out.dtype)

        words = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
        return jax.vmap(unravel)(jax.pure_callback(points, out, words, vmap_method="sequential"))


class SignPairs(AbstractSampling):
    r"""Pairs (θ, ιθ) with the encoder's reflection ι, so that the average of g starts at exactly 0.

    Half the particles are drawn by `base`, the others are their reflections: all integrals of odd functions of the
    reflected coordinates are exact. Halves the early error of the limit.

    **Arguments:**

    - `base`: the sampling of the first halves.

    **Raises:** `ValueError` if the encoder has no reflection or the width is odd.
    """

    base: AbstractSampling = Independent()

    def __call__(self, key: PRNGKeyArray, encoder: AbstractEncoder, width: int) -> PyTree[Array]:
        """Draw `width / 2` pairs; particle j and particle j + M/2 are reflections of each other."""
        if not isinstance(encoder, AbstractOddEncoder):
            raise ValueError(
                "`sampling` by sign pairs takes an encoder with a reflection: derive it from "
                f"wgf.encoders.AbstractOddEncoder; got {type(encoder).__name__}."
            )
        if width % 2:
            raise ValueError(f"`width` must be even for sampling by sign pairs; got {width}.")
        half = self.base(key, encoder, width // 2)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), half, encoder.reflect(half))


def particle_space(encoder: AbstractEncoder) -> tuple[int, eqx.Partial]:
    """The dimension P of the encoder's particles, and the map from a vector `[P]` to a particle."""
    shape = jax.eval_shape(lambda: encoder.sample(jax.random.key(0), ()))
    vector, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.result_type(float)), shape))
    if vector.size == 0:
        raise ValueError("`encoder` must have particles with at least one parameter; got none.")
    return vector.size, eqx.Partial(unravel)


def coordinate_names(encoder: AbstractEncoder) -> list[str]:
    """The name of each coordinate of [`wgf.measures.coordinates`][], such as `f.value[0,1]`."""
    particle = jax.eval_shape(lambda: encoder.sample(jax.random.key(0), ()))
    leaves, _ = jax.tree_util.tree_flatten_with_path(particle)
    return [
        jax.tree_util.keystr(path).lstrip(".") + (f"[{','.join(map(str, index))}]" if index else "")
        for path, leaf in leaves
        for index in np.ndindex(leaf.shape)
    ]
