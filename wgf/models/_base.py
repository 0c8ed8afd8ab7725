"""What a model is: an encoder, a measure, and a way from T(0) = H to T(1)."""

import abc
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._depth import check_depth
from ..encoders import AbstractEncoder
from ..measures import AbstractMeasure, Layered
from ._adjoint import AbstractAdjoint

Batch = Float[Array, "batch token_dim length"]
_Model = TypeVar("_Model", bound="AbstractModel")


class AbstractModel(eqx.Module):
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

    def with_particles(self: _Model, particles: PyTree[Array]) -> _Model:
        """The same model with other particles of the same structure and shapes."""
        return eqx.tree_at(lambda model: model.measure, self, self.measure.with_particles(particles))

    def with_tracers(self: _Model, *models: "AbstractModel") -> _Model:
        """Let the particles of other (finite) models ride along as tracers, at their own depths.

        **Arguments:**

        - `models`: models with a [`wgf.measures.Layered`][] measure and the same encoder; they replace earlier tracers.

        **Returns:** the model with `tracers`; under [`wgf.flow`][] they move by this model's velocity field, and
        [`wgf.gap`][] then reports the coupling distance of arXiv:2410.23610's propagation of chaos.

        **Raises:** `ValueError` if a model's measure is not layered, or its encoder another one.
        """
        measures: list[Layered] = []
        for model in models:
            if not isinstance(model.measure, Layered):
                raise ValueError(
                    "`with_tracers` takes models whose measure is wgf.measures.Layered; got "
                    f"{type(model.measure).__name__}."
                )
            if not eqx.tree_equal(model.encoder, self.encoder):
                raise ValueError(
                    f"`with_tracers` takes models of the same encoder, {self.encoder}; got {model.encoder}."
                )
            measures.append(model.measure)
        return self._with_tracer_measures(tuple(measures))

    def with_tracer_particles(self: _Model, particles: tuple[PyTree[Array], ...]) -> _Model:
        """The same model with other tracer particles, one PyTree for each of its `tracers`."""
        moved = (measure.with_particles(p) for measure, p in zip(self.tracers, particles, strict=True))
        return self._with_tracer_measures(tuple(moved))

    def _with_tracer_measures(self: _Model, tracers: tuple[Layered, ...]) -> _Model:
        return eqx.tree_at(lambda model: model.tracers, self, tracers, is_leaf=lambda x: isinstance(x, tuple) and not x)


def check_depths(depths: ArrayLike) -> Float[Array, " depths"]:
    """Return depths in [0, 1] as a vector; raise `ValueError` if they are none or (where known) leave [0, 1]."""
    depths = check_depth("depths", depths)
    if depths.ndim != 1:
        raise ValueError(f"`depths` must be a vector of depths in [0, 1]; got shape {depths.shape}.")
    return depths
