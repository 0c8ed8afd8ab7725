"""The run of `wgf limit`."""

from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ..._checks import check_memory
from ...analysis import Gap, Noise, Replicates, flow_each, gap, noise as noise_of, pool
from ...encoders import Average, Perceptron, SoftmaxAttention
from ...flows import FlowSolution, flow, flow_many
from ...measures import Gaussian, Layered
from ...models import AveragedODE, Transformer
from ...objective import Objective
from ...sharding import gather, parse_mesh, shard, start_processes
from .._data import load_prompts
from .._parts import Parts
from .._progress import Progress
from .._settings import devices_of, with_settings
from ._clouds import clouds_of
from ._config import SAMPLINGS, LimitConfig, check, distinct_sizes, replicate_width
from ._result import LimitResult

_Tree = TypeVar("_Tree")
_TRACER_DEPTHS = 4


@with_settings
def run(config: LimitConfig, *, show_progress: bool | None = None, parts: Parts | None = None) -> LimitResult:
    """Run the main job: every finite flow and the PDE's flow, with the same fresh tracers in each, and the gaps.

    **Arguments:**

    - `config`: [`wgf.experiments.LimitConfig`][].
    - `show_progress`: whether to draw a progress bar; None for a bar on a terminal and in a notebook.
    - `parts`: [`wgf.experiments.Parts`][], where finished parts are kept and read; None for nowhere.

    **Returns:** [`wgf.experiments.LimitResult`][].

    **Raises:** `ValueError` that names the option that cannot be used, before anything is compiled.
    """
    check(config)
    if config.distributed is not None:
        start_processes(config.distributed)
    data_key, limit_key, fresh_key, *keys = jax.random.split(jax.random.key(config.seed), 3 + len(config.sizes))
    prompts = load_prompts(
        data_key, config.data, config.target, batch=config.batch, examples=config.examples, dim=config.dim
    )
    objective = Objective(prompts, config.weight_decay)
    encoder = Average(
        SoftmaxAttention(prompts.token_dim, key_dim=config.key_dim), Perceptron(prompts.token_dim, jnp.tanh)
    )
    initial = Gaussian(encoder, config.scale)
    check_memory(each=_TRACER_DEPTHS * 2 * prompts.token_dim, tracers=config.tracers)
    check_memory(sizes=max(depth * width for depth, width in config.sizes), seeds=config.seeds)
    fresh = initial.layered(_TRACER_DEPTHS, config.tracers, fresh_key)
    finite = [
        Transformer(encoder, initial.layered(depth, width, key)).with_tracers(fresh)
        for (depth, width), size_key in zip(distinct_sizes(config), keys, strict=True)
        for key in jax.random.split(size_key, config.seeds)
    ]
    placed, width = Gaussian(encoder, config.scale, SAMPLINGS[config.sampling]), replicate_width(config)
    limits = [
        AveragedODE(encoder, placed.staged(width, key, steps=config.steps, joint=True))
        for key in jax.random.split(limit_key, config.replicates)
    ]
    return _solve(config, objective, finite, limits, fresh, show_progress, parts)


def _solve(
    config: LimitConfig,
    objective: Objective,
    finite: list[Transformer],
    limits: list[AveragedODE],
    fresh: Layered,
    show_progress: bool | None,
    parts: Parts | None,
) -> LimitResult:
    """Solve all flows, and measure the gaps."""
    mesh = None if config.mesh is None else parse_mesh(config.mesh, config.device and devices_of(config.device))
    if mesh is not None:
        objective, finite, limits, fresh = shard((objective, finite, limits, fresh), mesh)
    # With several processes, each computes all gaps by itself.
    gap_mesh = mesh if jax.process_count() == 1 else None
    # One program is compiled while another runs. On a mesh all processes must start their programs in the same order.
    with Progress(5, show_progress, at_once=2 if mesh is None else 1, parts=parts) as progress:
        pooled = progress.start("Wasserstein-flow PDE", _flow_limit, config, objective, limits, fresh)
        trained = progress.start("Transformers", _flow_finite, config, objective, finite, solves=len(finite))
        members = progress.start("the PDE's replicates", _flow_replicates, config, objective, limits)
        limit = Replicates(pooled.result(), members.result()).raise_if_failed()
        noise = progress.start("the PDE's own error", _noise, limit, gap_mesh).result()
        solutions = trained.result()
        gaps = progress.start("distances", _compare, solutions, limit, noise, gap_mesh).result()
        by_size, objective = _by_size(config, solutions), _on_one_device(config, objective)
        clouds = clouds_of(limit.pooled, solutions, largest=by_size[-1][0])
        return LimitResult(config, objective, limit, noise, by_size, _by_size(config, gaps), clouds)


def _flow_limit(meter, config: LimitConfig, objective: Objective, limits, fresh: Layered) -> FlowSolution:
    """The PDE's flow from all replicates, with the fresh particles as tracers."""
    start = pool(limits).with_tracers(fresh)
    solution = flow(objective, start, config.taus, rtol=config.rtol, progress_meter=meter, throw=False)
    return _on_one_device(config, solution)


def _flow_finite(
    meter, config: LimitConfig, objective: Objective, models: Sequence[Transformer]
) -> tuple[FlowSolution, ...]:
    """The flows of the finite models."""
    solutions = flow_many(objective, models, config.taus, rtol=config.rtol, progress_meter=meter, throw=False)
    return tuple(_on_one_device(config, solution) for solution in solutions)


def _flow_replicates(_, config: LimitConfig, objective: Objective, limits) -> FlowSolution:
    """The flow of each replicate alone."""
    return _on_one_device(config, flow_each(objective, limits, config.taus, rtol=config.rtol))


def _noise(_, limit: Replicates, mesh: Mesh | None) -> Noise:
    return noise_of(limit, mesh=mesh)


def _compare(
    _, solutions: Sequence[FlowSolution], limit: Replicates, noise: Noise, mesh: Mesh | None
) -> tuple[Gap, ...]:
    return tuple(gap(solution, limit, noise=noise, mesh=mesh) for solution in solutions)


def _by_size(config: LimitConfig, each: Sequence[_Tree]) -> tuple[tuple[_Tree, ...], ...]:
    """Those of one size, seed by seed, together."""
    seeds = config.seeds
    return tuple(tuple(each[start : start + seeds]) for start in range(0, len(each), seeds))


def _on_one_device(config: LimitConfig, tree: _Tree) -> _Tree:
    """The arrays on one device, where gaps are computed."""
    return tree if config.mesh is None else gather(tree)
