"""The limit in `wgf rates`: its replicates, its flow with tracers, and its training by an optimiser."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ...analysis import Estimate, flow_replicates, pool
from ...encoders import AbstractEncoder, Average
from ...measures import Gaussian, Layered, SignPairs, Sobol, ThreeEighths
from ...models import AbstractModel, AveragedODE, Transformer
from ...objective import Objective
from .._grouping import Size
from ._training import FlowSchedule, TrainingSchedule, train_all

_Model = TypeVar("_Model", bound=AbstractModel)


class Reference(NamedTuple):
    """The limit's values at the end, with their errors."""

    outputs: Estimate
    risk: Estimate
    objective: Estimate


class LimitFlow(NamedTuple):
    """The limit's flow, with the finite models' particles as tracers.

    - `tracers`: the tracers of each size at the end, `[seeds, L, M, ...]`.
    - `transport`: the root mean square error of a tracer.
    """

    reference: Reference
    tracers: Mapping[Size, PyTree[np.ndarray]]
    transport: float


def draw_replicates(
    encoder: Average, scale: float, width: int, steps: int, replicates: int, key: PRNGKeyArray
) -> list[AveragedODE]:
    """Draw the limit's replicates: a joint quasi-random, symmetric sample at each stage time of the depth solve."""
    law = Gaussian(encoder, scale, SignPairs(Sobol()))
    return [
        AveragedODE(encoder, law.staged(width, key, solver=ThreeEighths(), steps=steps, joint=True))
        for key in jax.random.split(key, replicates)
    ]


def flow_limit(
    objective: Objective,
    models: Sequence[AveragedODE],
    particles: Mapping[Size, PyTree[np.ndarray]],
    schedule: FlowSchedule,
) -> LimitFlow:
    """Solve the limit from its replicates, pooled and each alone, with the finite models' particles as tracers."""
    depths = sorted({size[0] for size in particles})
    tracers = [
        concatenate_widths(models[0].encoder, [p for size, p in particles.items() if size[0] == depth])
        for depth in depths
    ]
    solved = flow_replicates(objective, models, schedule.taus(), tracers=tracers, **schedule.options())
    estimates = (
        Estimate(getattr(solved.pooled, name)[-1], getattr(solved.members, name)[:, -1]) for name in Reference._fields
    )
    ended: dict[Size, PyTree[np.ndarray]] = {}
    for depth, tracer in zip(depths, solved.pooled.model_at(-1).tracers, strict=True):
        ended |= split_widths([size for size in particles if size[0] == depth], tracer.particles, _seeds(particles))
    return LimitFlow(Reference(*estimates), ended, float(solved.transport_error()[-1]))


def train_limit(objective: Objective, models: Sequence[AveragedODE], schedule: TrainingSchedule) -> Reference:
    """Train the limit by an optimiser: each particle has its own state, in the common velocity field."""
    members = train_all(objective, _stack(models), schedule)
    pooled = train_all(objective, _stack([pool(models)]), schedule)
    return Reference(*(Estimate(getattr(pooled, name)[0], getattr(members, name)) for name in Reference._fields))


@eqx.filter_jit
def concatenate_widths(encoder: AbstractEncoder, particles: Sequence[PyTree[Array]]) -> Transformer:
    """One model with the particles of all models of one depth, concatenated along the width."""

    def row(leaf):
        """`[seeds, L, M, ...]` to `[L, seeds · M, ...]`."""
        return jnp.moveaxis(leaf, 0, 1).reshape(leaf.shape[1], -1, *leaf.shape[3:])

    rows = [jax.tree.map(row, each) for each in particles]
    return Transformer(encoder, Layered(jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *rows)))


def split_widths(sizes: Sequence[Size], particles: PyTree[Array], seeds: int) -> dict[Size, PyTree[np.ndarray]]:
    """The inverse of `concatenate_widths`."""
    ends = itertools.accumulate(seeds * width for _, width in sizes)

    def cut(leaf: np.ndarray, end: int, width: int) -> np.ndarray:
        row = leaf[:, end - seeds * width : end]
        return np.moveaxis(row.reshape(len(row), seeds, width, *row.shape[2:]), 1, 0)

    host = jax.tree.map(np.asarray, particles)
    return {
        size: jax.tree.map(lambda leaf, end=end, width=size[1]: cut(leaf, end, width), host)
        for size, end in zip(sizes, ends, strict=True)
    }


def _seeds(particles: Mapping[Size, PyTree[np.ndarray]]) -> int:
    return jax.tree.leaves(next(iter(particles.values())))[0].shape[0]


def _stack(models: Sequence[_Model]) -> _Model:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
