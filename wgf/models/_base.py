"""The model interface: an encoder, a measure, and a map from T(0) = H to T(1)."""

import abc
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import equinox as eqx
import jax
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._backend.same import same
from .._checks import check_types, numbers, shown
from .._depth import check_depth
from .._display.text import Brief, kind, memory, sizes
from .._finite import finite_leaves
from ..encoders import AbstractEncoder
from ..measures import AbstractMeasure, Layered
from ._adjoint import AbstractAdjoint

Batch = Float[Array, "batch token_dim length"]
_Model = TypeVar("_Model", bound="AbstractModel")


class AbstractModel(Brief):
    r"""A map of prompts \( H \mapsto T_\rho(H, 1) \), given by an encoder and a measure over depth.

    The flow moves `measure.particles` and the particles of `tracers`. Tracers are measures without mass, at their own
    depths. They feel the velocity field and add nothing to it.

    A model's `repr` is one line, and `summary()` has several. `equinox.tree_pformat` gives its whole structure.
    """

    encoder: eqx.AbstractVar[AbstractEncoder]
    measure: eqx.AbstractVar[AbstractMeasure]
    tracers: eqx.AbstractVar[tuple[Layered, ...]]

    def _facts(self) -> Iterator[str]:
        yield _name(self.encoder)
        law = self.measure
        yield f"{type(law).__name__} {law._size()}" if isinstance(law, AbstractMeasure) else kind(law)
        if self.tracers:
            yield f"tracers {' and '.join(sizes(measure.weights) for measure in self.tracers)}"
        yield memory(self)

    @abc.abstractmethod
    def __call__(self, tokens: Batch) -> Batch:
        """Push prompts `[B, D, N+1]` from depth 0 to depth 1."""

    @abc.abstractmethod
    def trajectory(self, tokens: Batch, depths: ArrayLike) -> Float[Array, "depths batch token_dim length"]:
        """The tokens T(t) at the given depths, `[len(depths), B, D, N+1]`.

        **Raises:** `ValueError` if `depths` is not a vector, or a depth that is not traced lies outside [0, 1] by more
        than rounding (see [`wgf.measures.AbstractMeasure`][]).
        """

    @abc.abstractmethod
    def adjoint(self, tokens: Batch, terminal: Callable[[Batch], Batch]) -> AbstractAdjoint:
        """Push prompts forward, then pull the adjoint `p(1) = terminal(T(1))` back through depth."""

    def discrete_adjoint(self, tokens: Batch, terminal: Callable[[Batch], Batch]) -> AbstractAdjoint:
        """The adjoint whose pairing at the measure's own depths is the derivative of the model as it is computed."""
        return self.adjoint(tokens, terminal)

    def check(self) -> None:
        """Raise `ValueError` unless particles share one type, the measure's axes and the encoder's structure."""
        for measure in (self.measure, *self.tracers):
            measure.check()
            self.encoder.check_particles(measure.particles, 2)

    def check_finite(self) -> None:
        """Raise `ValueError` that names the leaf if particles or weights, tracers included, are NaN or infinite.

        Traced arrays pass.
        """
        finite_leaves("model", {"measure": self.measure, "tracers": self.tracers})

    def with_particles(self: _Model, particles: PyTree[Array]) -> _Model:
        """The same model with other particles of the same structure and shapes."""
        return eqx.tree_at(lambda model: model.measure, self, self.measure.with_particles(particles))

    def with_tracers(self: _Model, *tracers: "AbstractModel | Layered") -> _Model:
        """Carry particles without mass, at their own depths.

        **Arguments:**

        - `tracers`: [`wgf.measures.Layered`][] measures, or models that have one and the same encoder. They replace
          earlier tracers.

        **Returns:** the model with `tracers`. Under [`wgf.flow`][] they move in this model's velocity field. If a
        finite model and its limit carry the same tracers, or the limit those of the finite model's own particles,
        [`wgf.gap`][] reports how far the two laws of particles are apart.

        **Raises:** `ValueError` if a measure is not layered, a model's encoder differs, or the particles differ from
        this model's in structure, shape or type. A copy of an encoder counts as the same encoder.
        """
        return self._with_tracer_measures(tuple(self._tracers(given) for given in tracers))

    def _tracers(self, given: "AbstractModel | Layered") -> Layered:
        measure = given.measure if isinstance(given, AbstractModel) else given
        if not isinstance(measure, Layered):
            raise ValueError(
                "`with_tracers` takes models whose measure is wgf.measures.Layered, or such measures, each as its own "
                f"argument; got {type(measure).__name__}."
            )
        if isinstance(given, AbstractModel) and not same(given.encoder, self.encoder):
            raise ValueError(
                f"`with_tracers` takes models of the same encoder, {_whole(self.encoder)}; got "
                f"{_whole(given.encoder)}. Build both from one encoder, or use functions of the same code and "
                "constants."
            )
        own, other = (_kind(each) for each in (self.measure, measure))
        if own != other or jax.tree.structure(own) != jax.tree.structure(other):
            raise ValueError(
                f"`with_tracers` takes models whose particles have the shapes and types of this one's, {own}; got "
                f"{other}. Draw both with the same encoder, and cast one with `.astype`."
            )
        return measure

    def with_tracer_particles(self: _Model, particles: tuple[PyTree[Array], ...]) -> _Model:
        """The same model with other tracer particles, one PyTree for each of its `tracers`."""
        moved = (measure.with_particles(p) for measure, p in zip(self.tracers, particles, strict=True))
        return self._with_tracer_measures(tuple(moved))

    def _with_tracer_measures(self: _Model, tracers: tuple[Layered, ...]) -> _Model:
        return eqx.tree_at(lambda model: model.tracers, self, tracers, is_leaf=lambda x: isinstance(x, tuple) and not x)


def _name(encoder: Any) -> str:
    """The name of an encoder, with those of the encoders within it."""
    inner = [_name(part) for part in vars(encoder).values() if isinstance(part, AbstractEncoder)]
    return f"{kind(encoder)}({', '.join(inner)})" if inner else kind(encoder)


def _whole(encoder: AbstractEncoder) -> str:
    """The encoder with its fields, on one line."""
    return " ".join(str(encoder).split())[:300]


def _kind(measure: AbstractMeasure) -> PyTree[str]:
    """The shape and type of each leaf of one particle."""
    return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape[2:])}", measure.particles)


def check_tokens(model: AbstractModel, tokens: ArrayLike) -> Batch:
    """Return prompts as an array; raise `ValueError` unless they fit the model's particles.

    The encoder's mean checks that they fit the encoder.
    """
    model.check()
    tokens = numbers("tokens", tokens)
    if tokens.ndim != 3 or 0 in tokens.shape:
        raise ValueError(
            f"`tokens` must have shape [B, D, N+1], all at least 1; got {tokens.shape}. Pass a single "
            "prompt as `tokens[None]`."
        )
    check_types(tokens, model.measure.particles, model.measure.weights)
    return tokens


def check_terminal(terminal: Callable[[Batch], Batch]) -> None:
    """Raise `ValueError` unless the end of the adjoint is a function of the final tokens."""
    if not callable(terminal):
        raise ValueError(
            f"`terminal` must be a function of the final tokens, e.g. jnp.ones_like; got {shown(terminal)}."
        )


def check_depths(depths: ArrayLike) -> Float[Array, " depths"]:
    """Return a vector of depths; raise `ValueError` for other shapes, or untraced depths outside [0, 1]."""
    depths = check_depth("depths", depths)
    if depths.ndim != 1:
        raise ValueError(f"`depths` must be a vector of depths in [0, 1]; got shape {depths.shape}.")
    return depths
