"""The runs behind the experiment of rates: finite Transformers of many sizes in few programs, and their reference."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..analysis import Estimate, flow_replicates, pool
from ..encoders import AbstractEncoder, Average
from ..flows import FlowSolution, TrainSolution, flow, train
from ..measures import Gaussian, Layered, SignPairs, Sobol, ThreeEighths
from ..models import AbstractModel, AveragedODE, Transformer
from ..objective import Objective
from ._sizes import Size

_Model = TypeVar("_Model", bound=AbstractModel)


class Clock(NamedTuple):
    """Kutta's 3/8 rule at constant steps in τ, the same for all flows."""

    tau: float
    steps: int

    def options(self) -> dict:
        """The options of a flow."""
        dt0 = self.tau / self.steps
        return {"solver": ThreeEighths(), "controller": diffrax.ConstantStepSize(), "dt0": dt0}

    def taus(self) -> Float[Array, " saves"]:
        """Start and end."""
        return jnp.array([0.0, self.tau])


class Course(NamedTuple):
    """AdamW on the mean-field gradient; Adam where `decoupled` is 0."""

    learning_rate: float
    epsilon: float
    decoupled: Float[Array, ""]
    updates: int

    def __call__(self, objective: Objective, model: AbstractModel) -> TrainSolution:
        """Train one model."""
        # The decay is traced, so that one program serves both optimisers.
        optimiser = optax.adamw(self.learning_rate, eps=self.epsilon, weight_decay=self.decoupled)
        return train(objective, model, optimiser, steps=self.updates, throw=False)


class Reference(NamedTuple):
    """The limit at the end, with error bars."""

    outputs: Estimate
    risk: Estimate
    objective: Estimate


class Ends(NamedTuple):
    """Models at the end, `[models]` each; `particles` with `[models, L, M, ...]`, None where nobody asks."""

    outputs: Float[Array, "models batch"]
    risk: Float[Array, " models"]
    objective: Float[Array, " models"]
    particles: PyTree[Array] | None


class Pack(NamedTuple):
    """Finite models of several sizes and all seeds, in the shape of the largest: `[sizes · seeds]` first everywhere."""

    sizes: tuple[Size, ...]
    models: Transformer

    def split(self, arrays: PyTree) -> dict[Size, PyTree]:
        """The seeds of each size, from arrays of all."""
        seeds = self.models.measure.weights.shape[0] // len(self.sizes)
        host = jax.tree.map(np.asarray, arrays)
        parts = {size: slice(number * seeds, (number + 1) * seeds) for number, size in enumerate(self.sizes)}
        return {size: jax.tree.map(lambda x, part=part: x[part], host) for size, part in parts.items()}


def starts(encoder: Average, scale: float, sizes: tuple[Size, ...], seeds: int, key: PRNGKeyArray) -> Pack:
    """Finite models of these sizes, independent draws from ρ₀ for every size and seed; the first size is the largest.

    A model of L layers and M particles is the corner `[:L, :M]` of a larger one, as in [`wgf.models.pad`][].
    """
    depth, width = sizes[0]
    law = Gaussian(encoder, scale)

    def start(size, key):
        measure = law.layered(depth, width, key)
        own = (jnp.arange(depth)[:, None] < size[0]) & (jnp.arange(width) < size[1])[None]
        weights = jnp.where(own, depth / (size[0] * size[1]), 0).astype(measure.weights.dtype)
        model = Transformer(encoder, eqx.tree_at(lambda m: m.weights, measure, weights))
        return eqx.tree_at(lambda m: m.layers, model, size[0], is_leaf=lambda leaf: leaf is None)

    each = jnp.repeat(jnp.array(sizes), seeds, axis=0)
    return Pack(sizes, eqx.filter_jit(eqx.filter_vmap(start))(each, jax.random.split(key, len(each))))


def own_particles(pack: Pack, particles: PyTree[Array]) -> dict[Size, PyTree[np.ndarray]]:
    """The particles of weight above zero of each size, `[seeds, L, M, ...]`."""
    return {
        size: jax.tree.map(lambda leaf, size=size: leaf[:, : size[0], : size[1]], found)
        for size, found in pack.split(particles).items()
    }


def parts(
    encoder: Average, scale: float, width: int, steps: int, replicates: int, key: PRNGKeyArray
) -> list[AveragedODE]:
    """The limit's replicates: a jointly quasi-random, symmetric sample at each stage time of the depth solve."""
    law = Gaussian(encoder, scale, SignPairs(Sobol()))
    return [
        AveragedODE(encoder, law.staged(width, key, solver=ThreeEighths(), steps=steps, joint=True))
        for key in jax.random.split(key, replicates)
    ]


@eqx.filter_jit
def flow_all(objective: Objective, models: Transformer, clock: Clock) -> Ends:
    """The flows of many models of one shape, one after another."""

    def end(model: Transformer) -> Ends:
        solved = flow(objective, model, clock.taus(), throw=False, **clock.options())
        return Ends(*_last(solved), solved.model_at(-1).measure.particles)

    return jax.lax.map(end, models)


@eqx.filter_jit
def train_all(objective: Objective, models: AbstractModel, course: Course) -> Ends:
    """The same under an optimiser."""
    return jax.lax.map(lambda model: Ends(*_last(course(objective, model)), None), models)


def _last(solved: FlowSolution | TrainSolution) -> tuple[Array, Array, Array]:
    return solved.outputs[-1], solved.risk[-1], solved.objective[-1]


class Limit(NamedTuple):
    """The limit's flow with the finite models' particles as tracers.

    - `pooled`: its solution; `twins`: the tracers of each size at the end, `[seeds, L, M, ...]`.
    - `transport`: the mean squared error of a tracer.
    """

    reference: Reference
    pooled: FlowSolution
    twins: Mapping[Size, PyTree[np.ndarray]]
    transport: float


def flow_limit(
    objective: Objective, models: Sequence[AveragedODE], own: Mapping[Size, PyTree[np.ndarray]], clock: Clock
) -> Limit:
    """Solve the limit from its replicates, pooled and alone, with the particles of all sizes as tracers."""
    depths = sorted({size[0] for size in own})
    riders = [_side_by_side(models[0].encoder, [p for s, p in own.items() if s[0] == depth]) for depth in depths]
    solved = flow_replicates(objective, models, clock.taus(), tracers=riders, **clock.options())
    estimates = (
        Estimate(getattr(solved.pooled, name)[-1], getattr(solved.members, name)[:, -1]) for name in Reference._fields
    )
    twins: dict[Size, PyTree[np.ndarray]] = {}
    for depth, tracer in zip(depths, solved.pooled.model_at(-1).tracers, strict=True):
        twins |= _apart([s for s in own if s[0] == depth], tracer.particles, _seeds(own))
    return Limit(Reference(*estimates), solved.pooled, twins, float(solved.transport_error()[-1]))


def _seeds(own: Mapping[Size, PyTree[np.ndarray]]) -> int:
    return jax.tree.leaves(next(iter(own.values())))[0].shape[0]


@eqx.filter_jit
def _side_by_side(encoder: AbstractEncoder, own: Sequence[PyTree[Array]]) -> Transformer:
    """All particles of the models of one depth in one model, next to each other along its width."""

    def row(leaf):
        """`[seeds, L, M, ...]` to `[L, seeds · M, ...]`."""
        return jnp.moveaxis(leaf, 0, 1).reshape(leaf.shape[1], -1, *leaf.shape[3:])

    rows = [jax.tree.map(row, particles) for particles in own]
    return Transformer(encoder, Layered(jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *rows)))


def _apart(sizes: Sequence[Size], particles: PyTree[Array], seeds: int) -> dict[Size, PyTree[np.ndarray]]:
    """Undo `_side_by_side`."""
    ends = itertools.accumulate(seeds * width for _, width in sizes)

    def cut(leaf: np.ndarray, end: int, width: int) -> np.ndarray:
        row = leaf[:, end - seeds * width : end]
        return np.moveaxis(row.reshape(len(row), seeds, width, *row.shape[2:]), 1, 0)

    host = jax.tree.map(np.asarray, particles)
    return {
        size: jax.tree.map(lambda leaf, end=end, width=size[1]: cut(leaf, end, width), host)
        for size, end in zip(sizes, ends, strict=True)
    }


def train_limit(objective: Objective, models: Sequence[AveragedODE], course: Course) -> Reference:
    """The limit under an optimiser: each particle by its own state, in the field of all."""
    members = train_all(objective, _stack(models), course)
    pooled = train_all(objective, _stack([pool(models)]), course)
    return Reference(*(Estimate(getattr(pooled, name)[0], getattr(members, name)) for name in Reference._fields))


def _stack(models: Sequence[_Model]) -> _Model:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
