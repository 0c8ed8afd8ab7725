"""`flow_many`: flows of Transformers of many sizes, by few compiled programs."""

import math
from collections.abc import Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
from jax.sharding import NamedSharding
from jaxtyping import Array, ArrayLike, PyTree

from .._checks import instance, shown
from ..models import Transformer
from ..models._padding import pad, unpad
from ..objective import Objective
from ._flow import flow
from ._solution import FlowSolution

Size = tuple[int, int]
"""Depth L and width M of a Transformer."""

# A flow takes as long to compile as to move about this many pairs of a particle and a prompt.
_COMPILING = 2**18


def flow_many(
    objective: Objective,
    models: Sequence[Transformer],
    taus: ArrayLike | Sequence[float],
    *,
    solver: diffrax.AbstractSolver | None = None,
    rtol: float | Array = 1e-4,
    atol: float | Array = 1e-6,
    controller: diffrax.AbstractStepSizeController | None = None,
    dt0: float | Array | None = None,
    steady: float | Array | None = None,
    max_steps: int = 4096,
    progress_meter: diffrax.AbstractProgressMeter = diffrax.NoProgressMeter(),  # noqa: B008
    throw: bool = True,
) -> tuple[FlowSolution, ...]:
    """Move Transformers of many sizes by [`wgf.flow`][], with fewer programs than models.

    A flow of a small model takes longer to compile than to run. Models of nearly equal sizes therefore share a program:
    each is solved as a corner of the largest of them, whose other layers and particles have no mass. The solutions are
    those of the models by themselves, up to rounding.

    ```python
    finite = [wgf.Transformer(encoder, law.layered(depth, width, key)) for depth, width, key in sizes]
    solutions = wgf.flow_many(objective, finite, [0.0, 1.0, 2.0])
    ```

    **Arguments:**

    - `objective`: [`wgf.Objective`][].
    - `models`: Transformers, of one encoder or of several, with or without tracers. Only those of one structure share
      programs.
    - `taus`, `solver`, `rtol`, `atol`, `controller`, `dt0`, `steady`, `max_steps`, `throw`: as in [`wgf.flow`][]. There
      is no noise.
    - `progress_meter`: a meter for each of the flows in turn.

    **Returns:** a [`wgf.flows.FlowSolution`][] for each model, in their order.

    **Raises:** `ValueError` if `objective` is not a `wgf.Objective` or `models` is not a sequence of Transformers; all
    that [`wgf.flow`][] raises.

    Cost: that of the flows, one after the other; where models share a program, of layers as wide as its widest. Not for
    `jit`.
    """
    objective = instance("objective", objective, Objective, "a wgf.Objective")
    if isinstance(models, str) or not isinstance(models, Sequence):
        raise ValueError(f"`models` must be a list of wgf.Transformer; got {shown(models)}.")
    for model in models:
        instance("models", model, Transformer, "a list of wgf.Transformer")
    sizes = [(len(model.measure.weights), model.measure.width) for model in models]
    shapes = shared_shapes(sizes, list(map(_kind, models)), _COMPILING // objective.prompts.batch)

    def solve(model: Transformer, shape: Size) -> FlowSolution:
        # A model that nobody shares a shape with stays what it is.
        is_alone = shapes.count(shape) == 1
        start = model if is_alone else _spread_as(pad(model, *shape), model)
        solution = flow(
            objective,
            start,
            taus,
            solver=solver,
            rtol=rtol,
            atol=atol,
            controller=controller,
            dt0=dt0,
            steady=steady,
            max_steps=max_steps,
            progress_meter=progress_meter,
            throw=throw,
        )
        own = solution.models if is_alone else unpad(solution.models, *model.measure.weights.shape)
        return eqx.tree_at(lambda s: s.models, solution, own)

    return tuple(solve(model, shape) for model, shape in zip(models, shapes, strict=True))


def shared_shapes(sizes: Sequence[Size], kinds: Sequence[Any], most_free: int) -> list[Size]:
    """The depth and width in which each model is solved: its own, or a larger model's that leaves few places free.

    **Arguments:** the models' `sizes`, pairs of depth and width; their `kinds`, equal where they may share a program;
    `most_free`, how many places, each for one particle, may stay free.
    """
    leaders: dict[Any, list[Size]] = {}
    shapes = list(sizes)
    for index in sorted(range(len(sizes)), key=lambda index: (math.prod(sizes[index]), sizes[index]), reverse=True):
        size, larger = sizes[index], leaders.setdefault(kinds[index], [])
        fits = [shape for shape in larger if _fits(size, shape) and math.prod(shape) - math.prod(size) <= most_free]
        if not fits:
            larger.append(size)
        shapes[index] = min(fits, key=math.prod, default=size)
    return shapes


def _fits(size: Size, shape: Size) -> bool:
    return size[0] <= shape[0] and size[1] <= shape[1]


def _kind(model: Transformer) -> Any:
    """What models that share a program have in common: all but the depth and width of their measures."""
    rest = jax.tree.leaves(eqx.tree_at(lambda m: m.measure, model, None))
    return (
        jax.tree.structure(model),
        tuple((leaf.dtype, leaf.shape[2:]) for leaf in jax.tree.leaves(model.measure)),
        tuple((leaf.dtype, leaf.shape) if eqx.is_array(leaf) else leaf for leaf in rest),
    )


def _spread_as(padded: Transformer, model: Transformer) -> Transformer:
    """The padded model over the devices that the model is spread over."""

    def place(leaf: Array, own: PyTree) -> Array:
        sharding = getattr(own, "sharding", None)
        return jax.device_put(leaf, sharding) if isinstance(sharding, NamedSharding) else leaf

    return eqx.tree_at(lambda m: m.measure, padded, jax.tree.map(place, padded.measure, model.measure))
