"""Measurement of the theory's assumptions for an encoder on given prompts."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from .._backend.compiled import compiled
from .._checks import ENCODER, at_least, check_memory, instance, positive, random_key
from .._random import purpose
from ..encoders import AbstractEncoder
from ..prompts import Prompts


class Lipschitz(NamedTuple):
    r"""The change of a gradient ∇ over short distances r: \( \|\nabla(x') - \nabla(x)\| / r \approx constant \cdot
    r^{exponent} \).

    An exponent of 0 means a Lipschitz gradient, and −1 a gradient that jumps.

    - `constant`: the quotient at the shortest distance.
    - `exponent`: the slope of its logarithm in log r.
    """

    constant: float
    exponent: float

    @property
    def holds(self) -> bool:
        """Whether the quotient stays bounded as r falls (an exponent above −0.25)."""
        return self.exponent > -0.25


class Assumptions(NamedTuple):
    r"""The measured properties of an encoder \( g(T, \theta) \).

    - `homogeneity`: for each leaf of the particle, the degree k of the part of g that depends on it,
      \( g(s\theta_i) - g(0) = s^k (g(\theta_i) - g(0)) \) for s > 0. It is 0 if g does not depend on the leaf, and
      None if no degree exists.
    - `joint`: the degree of g in all leaves together; None if no degree exists.
    - `partial`: the leaves in which g is jointly 1-homogeneous with the other leaves fixed: the theory's partial
      homogeneity. Empty if no leaves qualify.
    - `token_growth`, `particle_growth`: exponents of the growth of ‖g‖ when all of T, or all of θ, is scaled up.
    - `worst`: [`wgf.analysis.Lipschitz`][] of ∇_θ g, at the worst particles and prompts.
    - `mean`: the same, on average over prompts and particles.
    - `least_eigenvalue`: the least eigenvalue of the kernel \( E_\theta \langle g(H_b, \theta), g(H_{b'}, \theta)
      \rangle \) at the query on the distinct prompts, relative to the greatest. At rounding level the encoder cannot
      separate the prompts for arbitrary labels.
    """

    homogeneity: dict[str, float | None]
    joint: float | None
    partial: tuple[str, ...]
    token_growth: float
    particle_growth: float
    worst: Lipschitz
    mean: Lipschitz
    least_eigenvalue: float


def check_assumptions(
    encoder: AbstractEncoder,
    prompts: Prompts,
    *,
    key: PRNGKeyArray,
    scale: ArrayLike = 1.0,
    samples: int = 512,
) -> Assumptions:
    r"""Measure which assumptions of the theory an encoder meets on given prompts.

    Homogeneity is tested to machine precision. Growth, Lipschitz constants and the kernel's spectrum are estimates over
    `samples` particles, drawn from the encoder at the given scale. The results are properties of these samples. They
    can refute an assumption, but can only suggest that one holds.

    **Arguments:**

    - `encoder`: any encoder, including user-defined ones.
    - `prompts`: the data measure on which the assumptions are tested.
    - `key`: a random key for the particles.
    - `scale`: the scale of the particles around which the local constants are measured.
    - `samples`: the number of particles.

    **Returns:** [`wgf.analysis.Assumptions`][].

    **Raises:** `ValueError` if `samples` is below 16 or the scale is not positive.

    Cost: about 60 + 14 B gradients of the encoder per sample. Best in float64: in float32, rounding dominates at
    distances below 1e-3, and these are left out. Not for `jit`.

    **Source:** arXiv:2410.23610, section 4 (partial homogeneity, growth, local Lipschitz gradients, universality).
    """
    samples = at_least("samples", samples, 16)
    instance("encoder", encoder, AbstractEncoder, ENCODER)
    instance("prompts", prompts, Prompts, "a wgf.prompts.Prompts")
    check_memory(each=prompts.tokens.size, samples=samples)
    scale, key = positive("scale", scale), random_key("key", key)
    keys = jax.random.split(purpose(key, "analysis.check_assumptions"), 4)
    sample_key, row_key, segment_key, mean_key = keys
    dtype = prompts.tokens.dtype
    particles = jax.tree.map(lambda leaf: (scale * leaf).astype(dtype), encoder.sample(sample_key, (samples,)))
    # The mean raises if the encoder does not fit the prompts.
    jax.eval_shape(encoder.mean, particles, jnp.ones(samples, dtype), prompts.tokens)
    tokens = prompts.tokens[jax.random.choice(row_key, prompts.batch, (samples,), p=prompts.weights)]
    homogeneity, partial = _homogeneity(encoder, particles, tokens)
    return Assumptions(
        homogeneity=homogeneity,
        joint=_degree(encoder, particles, tokens, lambda _: True),
        partial=partial,
        token_growth=_growth(lambda s: _outputs(encoder, particles, s * tokens)),
        particle_growth=_growth(lambda s: _outputs(encoder, _scaled(particles, s), tokens)),
        worst=_worst(encoder, particles, tokens, segment_key),
        mean=_mean(encoder, particles, prompts, mean_key),
        least_eigenvalue=_least_eigenvalue(encoder, particles, prompts),
    )


@compiled
def _outputs(encoder: AbstractEncoder, particles: PyTree[Array], tokens: Array) -> Float[Array, "samples dim length"]:
    """The output of each particle on its own prompt."""
    return eqx.filter_vmap(encoder)(particles, tokens)


def _scaled(particles: PyTree[Array], factor: float, chosen: Callable[[str], bool] = lambda _: True) -> PyTree[Array]:
    """Scale the leaves chosen by name."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: factor * leaf if chosen(_name(path)) else leaf, particles
    )


def _name(path) -> str:
    return jax.tree_util.keystr(path).lstrip(".") or "particle"


def _degree(encoder, particles, tokens, chosen: Callable[[str], bool], *, linear: bool = False) -> float | None:
    """The degree of the part of g that depends on the chosen leaves; with `linear`, that part must also be odd."""

    def part(factor):
        moved = _outputs(encoder, _scaled(particles, factor, chosen), tokens)
        return np.asarray(moved - _outputs(encoder, _scaled(particles, 0.0, chosen), tokens), np.float64)

    whole, double = part(1.0), part(2.0)
    size, eps = np.abs(whole).max(), float(jnp.finfo(tokens.dtype).eps)
    if size == 0:
        return 0.0 if np.abs(double).max() == 0 else None
    degree = math.log2(np.linalg.norm(double) / np.linalg.norm(whole))
    # Rounded to a multiple of 1/2; the tests below reject a wrong degree.
    degree = round(2 * degree) / 2
    for factor in (0.5, 2.0, 3.0):
        if np.abs(part(factor) - factor**degree * whole).max() > 200 * eps * size * max(1, factor**degree):
            return None
    if linear and np.abs(part(-1.0) + whole).max() > 200 * eps * size:
        return None
    return degree


def _homogeneity(encoder, particles, tokens) -> tuple[dict[str, float | None], tuple[str, ...]]:
    """The degree of each leaf, and the leaves that are jointly 1-homogeneous, linear ones first."""
    names = [_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(particles)[0]]
    degrees = {name: _degree(encoder, particles, tokens, lambda leaf, name=name: leaf == name) for name in names}
    ones = [name for name in names if degrees[name] == 1]
    ones.sort(key=lambda name: _degree(encoder, particles, tokens, lambda leaf: leaf == name, linear=True) is None)
    together: tuple[str, ...] = ()
    for name in ones:
        if _degree(encoder, particles, tokens, lambda leaf, more=(*together, name): leaf in more) == 1:
            together = (*together, name)
    without = _outputs(encoder, _scaled(particles, 0.0, lambda leaf: leaf in together), tokens)
    # g must vanish where these leaves are 0: a part of g that they do not scale breaks the homogeneity.
    return degrees, together if together and float(jnp.abs(without).max()) == 0 else ()


def _growth(scaled: Callable[[float], Array]) -> float:
    """The slope of log ‖g‖ against the log of the scale, at large scales."""
    factors = 2.0 ** np.arange(5, 11)
    norms = [float(jnp.sqrt(jnp.mean(scaled(float(s)) ** 2))) for s in factors]
    if min(norms) == 0:
        return 0.0
    return float(np.polyfit(np.log(factors), np.log(norms), 1)[0])


@compiled
def _gradients(
    encoder: AbstractEncoder, like: PyTree[Array], theta: Float[Array, "samples dim"], tokens: Array
) -> Float[Array, "samples dim"]:
    """Gradients of ⟨g(T, θ), R⟩ for a fixed R of entries ±1, at particles as vectors, each with its own prompt."""
    unravel = ravel_pytree(like)[1]

    def paired(vector, tokens):
        output = encoder(unravel(vector), tokens)
        signs = jnp.cos(jnp.pi * jnp.arange(output.size, dtype=output.dtype)).reshape(output.shape)
        return jnp.sum(signs * output)

    return jax.vmap(jax.grad(paired))(theta, tokens)


def _worst(encoder, particles, tokens, key) -> Lipschitz:
    """Bisect random segments towards the half over which the gradient changes more, which closes in on jumps."""
    gradients = functools.partial(_gradients, encoder, _first(particles))
    left, step = _segments(particles, key)
    right = left + step
    at_left, at_right = gradients(left, tokens), gradients(right, tokens)
    quotients = []
    for _ in range(_halvings(left.dtype)):
        middle = (left + right) / 2
        at_middle = gradients(middle, tokens)
        first = jnp.linalg.norm(at_middle - at_left, axis=1) > jnp.linalg.norm(at_right - at_middle, axis=1)
        pick = first[:, None]
        left, at_left = jnp.where(pick, left, middle), jnp.where(pick, at_left, at_middle)
        right, at_right = jnp.where(pick, middle, right), jnp.where(pick, at_middle, at_right)
        change = jnp.linalg.norm(at_right - at_left, axis=1) / jnp.linalg.norm(right - left, axis=1)
        quotients.append(float(jnp.max(change)))
    return _fit(quotients)


def _mean(encoder, particles, prompts: Prompts, key) -> Lipschitz:
    """Shrink random segments around their particles, and average the quotient over particles and prompts."""
    start, step = _segments(particles, key)
    distances = [jnp.asarray(2.0**-level, start.dtype) for level in range(1, 8)]
    return _fit([float(_quotient(encoder, _first(particles), prompts, start, step, r)) for r in distances])


@compiled
def _quotient(
    encoder: AbstractEncoder,
    like: PyTree[Array],
    prompts: Prompts,
    start: Float[Array, "samples dim"],
    step: Float[Array, "samples dim"],
    distance: Float[Array, ""],
) -> Float[Array, ""]:
    """The mean change of the gradient over segments of one length, divided by that length."""

    def of_prompt(prompt):
        tokens = jnp.broadcast_to(prompt, (start.shape[0], *prompt.shape))
        ends = (_gradients(encoder, like, start + side * distance / 2 * step, tokens) for side in (1, -1))
        return jnp.mean(jnp.linalg.norm(jnp.subtract(*ends), axis=1)) / distance

    return prompts.expect(jax.lax.map(of_prompt, prompts.tokens))


def _first(particles: PyTree[Array]) -> PyTree[Array]:
    return jax.tree.map(lambda leaf: leaf[0], particles)


def _segments(particles, key) -> tuple[Array, Array]:
    """The particles as vectors, and for each a random step of length 1."""
    start = jax.vmap(lambda particle: ravel_pytree(particle)[0])(particles)
    step = jax.random.normal(key, start.shape, start.dtype)
    return start, step / jnp.linalg.norm(step, axis=1, keepdims=True)


def _halvings(dtype) -> int:
    """The number of halvings that keep the rounding of gradients within a thousandth of their change."""
    return int(-math.log2(1e3 * float(jnp.finfo(dtype).eps)) * 2 / 3)


def _fit(quotients: list[float]) -> Lipschitz:
    """Fit the later half of the quotients, whose distances halve from one to the next."""
    late = np.asarray(quotients[len(quotients) // 2 :])
    if late.min() == 0:
        return Lipschitz(float(late[-1]), 0.0)
    slope = np.polyfit(-math.log(2) * np.arange(late.size), np.log(late), 1)[0]
    return Lipschitz(float(late[-1]), float(slope))


def _least_eigenvalue(encoder, particles, prompts: Prompts) -> float:
    """The least eigenvalue, relative to the greatest, of the Gram matrix at the query over distinct prompts."""
    distinct = jnp.asarray(np.unique(np.asarray(prompts.tokens), axis=0))
    features = _features(encoder, particles, distinct)
    # Singular values of the features, not eigenvalues of their product: squares would lose small values to rounding.
    singular = np.linalg.svd(np.asarray(features).reshape(distinct.shape[0], -1), compute_uv=False)
    return float((singular[-1] / singular[0]) ** 2) if singular[0] > 0 else 0.0


@compiled
def _features(encoder: AbstractEncoder, particles: PyTree[Array], tokens: Array) -> Float[Array, "batch samples dim"]:
    """The output of each particle at the query of each prompt."""
    return jax.vmap(lambda prompt: jax.vmap(lambda particle: encoder(particle, prompt)[:, -1])(particles))(tokens)
