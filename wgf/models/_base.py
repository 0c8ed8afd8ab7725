"""What a model is: an encoder, a measure, and a way from T(0) = H to T(1)."""

import abc
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._backend.precision import Module
from .._backend.same import same
from .._checks import check_types, instance, numbers
from .._depth import check_depth
from ..encoders import AbstractEncoder
from ..measures import AbstractMeasure, Layered
from ._adjoint import AbstractAdjoint

Batch = Float[Array, "batch token_dim length"]
_Model = TypeVar("_Model", bound="AbstractModel")


class AbstractModel(Module):
    r"""A map of prompts \( H \mapsto T_\rho(H, 1) \), given by an encoder and a measure over depth.

    What moves under the flow are `measure.particles`, and with them the `tracers`: measures of no mass, at depths of
    their own, that feel the velocity field and make none.
    """

    encoder: eqx.AbstractVar[AbstractEncoder]
    measure: eqx.AbstractVar[AbstractMeasure]
    tracers: eqx.AbstractVar[tuple[Layered, ...]]

    @abc.abstractmethod
    def __call__(self, tokens: Batch) -> Batch:
        """Push prompts `[B, D, N+1]` from depth 0 to depth 1."""

    @abc.abstractmethod
    def trajectory(self, tokens: Batch, depths: ArrayLike) -> Float[Array, "depths batch token_dim length"]:
        """The tokens T(t) at the given depths, `[len(depths), B, D, N+1]`.

        **Raises:** `ValueError` if `depths` is not a vector, or a depth that is known leaves [0, 1] by more than
        rounding ([`wgf.measures.AbstractMeasure`][] has the rule).
        """

    @abc.abstractmethod
    def adjoint(self, tokens: Batch, terminal: Callable[[Batch], Batch]) -> AbstractAdjoint:
        """Push prompts forward, then pull the adjoint `p(1) = terminal(T(1))` back through depth."""

    def check(self) -> None:
        """Raise `ValueError` unless the measure's particles have one type, its axes and the encoder's structure."""
        for measure in (self.measure, *self.tracers):
            measure.check()
            self.encoder.check_particles(measure.particles, 2)

    def with_particles(self: _Model, particles: PyTree[Array]) -> _Model:
        """The same model with other particles of the same structure and shapes."""
        return eqx.tree_at(lambda model: model.measure, self, self.measure.with_particles(particles))

    def with_tracers(self: _Model, *models: "AbstractModel") -> _Model:
        """Let the particles of other (finite) models ride along as tracers, at their own depths.

        **Arguments:**

        - `models`: models with a [`wgf.measures.Layered`][] measure and the same encoder; they replace earlier tracers.

        **Returns:** the model with `tracers`; under [`wgf.flow`][] they move by this model's velocity field, and
        [`wgf.gap`][] then reports the coupling distance of arXiv:2410.23610's propagation of chaos.

        **Raises:** `ValueError` if a model's measure is not layered, its encoder another one, or its particles of
        another shape or type. A copy of an encoder is the same encoder.
        """
        measures: list[Layered] = []
        for model in models:
            instance("models", model, AbstractModel, "models whose particles ride along, given one by one")
            if not isinstance(model.measure, Layered):
                raise ValueError(
                    "`with_tracers` takes models whose measure is wgf.measures.Layered; got "
                    f"{type(model.measure).__name__}."
                )
            if not same(model.encoder, self.encoder):
                raise ValueError(
                    f"`with_tracers` takes models of the same encoder, {self.encoder}; got {model.encoder}. Make both "
                    "from one encoder, or give its functions the same code and numbers."
                )
            own, other = (_kind(measure) for measure in (self.measure, model.measure))
            if own != other or jax.tree.structure(own) != jax.tree.structure(other):
                raise ValueError(
                    f"`with_tracers` takes models whose particles have the shapes and types of this one's, {own}; got "
                    f"{other}. Draw both by the same encoder, and cast one by `.astype`."
                )
            measures.append(model.measure)
        return self._with_tracer_measures(tuple(measures))

    def with_tracer_particles(self: _Model, particles: tuple[PyTree[Array], ...]) -> _Model:
        """The same model with other tracer particles, one PyTree for each of its `tracers`."""
        moved = (measure.with_particles(p) for measure, p in zip(self.tracers, particles, strict=True))
        return self._with_tracer_measures(tuple(moved))

    def _with_tracer_measures(self: _Model, tracers: tuple[Layered, ...]) -> _Model:
        return eqx.tree_at(lambda model: model.tracers, self, tracers, is_leaf=lambda x: isinstance(x, tuple) and not x)


def _kind(measure: AbstractMeasure) -> PyTree[str]:
    """The shape and type of each leaf of one particle."""
    return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape[2:])}", measure.particles)


def check_tokens(model: AbstractModel, tokens: ArrayLike) -> Batch:
    """Return prompts as an array; raise `ValueError` unless they fit the model's particles.

    Whether they fit the encoder is found by its mean.
    """
    model.check()
    tokens = numbers("tokens", tokens)
    if tokens.ndim != 3 or 0 in tokens.shape:
        raise ValueError(
            f"`tokens` must have shape [B, D, N+1], none of them 0; got {tokens.shape}. A single prompt is "
            "`tokens[None]`."
        )
    check_types(tokens, model.measure.particles, model.measure.weights)
    return tokens


def check_depths(depths: ArrayLike) -> Float[Array, " depths"]:
    """Return depths in [0, 1] as a vector; raise `ValueError` if they are none or (where known) leave [0, 1]."""
    depths = check_depth("depths", depths)
    if depths.ndim != 1:
        raise ValueError(f"`depths` must be a vector of depths in [0, 1]; got shape {depths.shape}.")
    return depths
