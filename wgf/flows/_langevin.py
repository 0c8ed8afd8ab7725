"""Noise of a flow at positive temperature: mean-field Langevin dynamics."""

import dataclasses
import math
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._random import purpose
from ._geometry.base import AbstractGeometry, real_dtype
from ._state import State, pack
from ._velocity import tracers_of


class NoiseTerm(diffrax.AbstractTerm):
    r"""The term \( \sqrt{2\sigma}\,dW \) of \( d\theta = v\,d\tau + \sqrt{2\sigma}\,dW \), independent of the state."""

    scale: Float[Array, ""]
    paths: list[diffrax.VirtualBrownianTree]
    geometry: AbstractGeometry
    model: PyTree

    def vf(self, t: Any, y: State, args: Any) -> Float[Array, ""]:
        """The amplitude √(2σ)."""
        return self.scale

    def contr(self, t0: Any, t1: Any, **kwargs: Any) -> PyTree[Array]:
        """The increments over a step, a list of arrays per path; with Lévy areas if the solver asks for them."""
        parts = [path.evaluate(t0, t1, **kwargs) for path in self.paths]
        if not isinstance(first := parts[0], diffrax.AbstractBrownianIncrement):
            return parts
        names = {field.name for field in dataclasses.fields(first)} - {"dt"}
        return dataclasses.replace(first, **{name: [getattr(part, name) for part in parts] for name in names})

    def prod(self, vf: Float[Array, ""], control: PyTree[Array]) -> State:
        """The noise of parameters and tracers, spread over the depths that share it."""
        moved = [self.geometry.parameters(self.model), *(measure.particles for measure in tracers_of(self.model))]

        def spread(like, noise):
            # JAX's complex normal numbers have total variance 1; here the real and the imaginary part have it each.
            scale = vf * math.sqrt(2) if jnp.iscomplexobj(like) else vf
            return scale.astype(like.dtype) * jnp.broadcast_to(noise, like.shape)

        parts = [
            jax.tree.map(spread, like, jax.tree.unflatten(jax.tree.structure(like), noise))
            for like, noise in zip(moved, control, strict=True)
        ]
        zero = jnp.zeros((), real_dtype(parts[0]))
        return pack(self.geometry, parameters=parts[0], tracers=parts[1:], dissipated=zero, courant=zero)


def noise_term(
    geometry: AbstractGeometry,
    model: PyTree,
    temperature: Float[Array, ""],
    key: PRNGKeyArray,
    span: tuple[Array, Array],
    resolution: Array,
    solver: diffrax.AbstractSolver,
) -> NoiseTerm:
    """Brownian motions: one virtual tree for the parameters, and one per measure of tracers.

    Each depends on the key and on its own shapes alone. Solved with one key over the same `span` at the same
    `resolution`, a finite model and its tracers in the limit have the same noise: the coupling of propagation of chaos.
    """
    key = purpose(key, "flows.noise")
    own = jax.tree.leaves(geometry.noise(model))
    moved = jax.tree.leaves(geometry.parameters(model))
    # JAX's random arrays of different shapes share their first entries. Noise that is shared over depth has another
    # key, so that the limit's particles are independent of the tracers.
    shared = [a.shape for a in own] != [a.shape for a in moved]
    shapes = [own, *(_shapes(jax.tree.leaves(measure.particles)) for measure in tracers_of(model))]
    keys = [jax.random.fold_in(key, 1) if shared else key, *(key for _ in tracers_of(model))]
    area = getattr(solver, "minimal_levy_area", diffrax.BrownianIncrement)
    drawn = next(a for a in _AREAS if issubclass(a, area))
    paths = [
        diffrax.VirtualBrownianTree(*span, resolution, shape, k, drawn) for shape, k in zip(shapes, keys, strict=True)
    ]
    return NoiseTerm(jnp.sqrt(2 * temperature), paths, geometry, model)


_AREAS = (diffrax.BrownianIncrement, diffrax.SpaceTimeLevyArea, diffrax.SpaceTimeTimeLevyArea)


def _shapes(tree: PyTree[Array]) -> PyTree[jax.ShapeDtypeStruct]:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def check_noise(key: PRNGKeyArray | None, solver: Any, dt0: Any, steady: Any) -> None:
    """Raise `ValueError` unless the options of a flow fit an equation with noise."""
    if key is None:
        raise ValueError("`key` must be given with `temperature` > 0, to draw the noise; got None.")
    if not isinstance(solver, (diffrax.AbstractItoSolver, diffrax.AbstractStratonovichSolver)):
        raise ValueError(
            "`solver` must solve stochastic differential equations at `temperature` > 0, e.g. diffrax.Heun() or "
            f"diffrax.ShARK(); got {type(solver).__name__}."
        )
    if dt0 is None:
        raise ValueError("`dt0`, the constant step, must be given with `temperature` > 0; got None.")
    if steady is not None:
        raise ValueError(
            "`steady` must be None at `temperature` > 0, since noise keeps particles moving; got a threshold."
        )
