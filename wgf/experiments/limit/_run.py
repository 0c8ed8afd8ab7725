"""The run of `wgf limit`."""

from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ...analysis import Gap, Replicates, flow_each, gap, pool
from ...encoders import Average, Perceptron, SoftmaxAttention
from ...flows import FlowSolution, flow, flow_many
from ...measures import Gaussian
from ...models import AveragedODE, Transformer
from ...objective import Objective
from ...sharding import gather, parse_mesh, shard, start_processes
from .._data import load_prompts
from .._progress import Progress
from ._config import SAMPLINGS, LimitConfig, check, distinct_sizes, replicate_width
from ._result import LimitResult

_Tree = TypeVar("_Tree")


def run(config: LimitConfig, *, show_progress: bool | None = None) -> LimitResult:
    """Run the main job: every finite flow, the PDE's flow with their particles as tracers, and the gaps.

    **Arguments:**

    - `config`: [`wgf.experiments.LimitConfig`][].
    - `show_progress`: whether to draw a progress bar; None for a bar if standard error is a terminal.

    **Returns:** [`wgf.experiments.LimitResult`][].

    **Raises:** `ValueError` that names the option that cannot be used, before anything is compiled.
    """
    check(config)
    if config.distributed is not None:
        start_processes(config.distributed)
    data_key, limit_key, *keys = jax.random.split(jax.random.key(config.seed), 2 + len(config.sizes))
    prompts = load_prompts(
        data_key, config.data, config.target, batch=config.batch, examples=config.examples, dim=config.dim
    )
    objective = Objective(prompts, config.weight_decay)
    encoder = Average(
        SoftmaxAttention(prompts.token_dim, key_dim=config.key_dim), Perceptron(prompts.token_dim, jnp.tanh)
    )
    initial = Gaussian(encoder, config.scale)
    finite = [
        Transformer(encoder, initial.layered(depth, width, key))
        for (depth, width), key in zip(distinct_sizes(config), keys, strict=True)
    ]
    placed, width = Gaussian(encoder, config.scale, SAMPLINGS[config.sampling]), replicate_width(config)
    limits = [
        AveragedODE(encoder, placed.staged(width, key, steps=config.steps, joint=True))
        for key in jax.random.split(limit_key, config.replicates)
    ]
    return _solve(config, objective, finite, limits, show_progress)


def _solve(
    config: LimitConfig,
    objective: Objective,
    finite: list[Transformer],
    limits: list[AveragedODE],
    show_progress: bool | None,
) -> LimitResult:
    """Solve all flows, and measure the gaps."""
    mesh = None if config.mesh is None else parse_mesh(config.mesh)
    if mesh is not None:
        objective, finite, limits = shard((objective, finite, limits), mesh)
    # With several processes, each computes all gaps by itself.
    gap_mesh = mesh if jax.process_count() == 1 else None
    names = [f"{depth} layers, width {width}" for depth, width in config.sizes]
    # One program is compiled while another runs. On a mesh all processes must start their programs in the same order.
    with Progress(len(finite) + 3, show_progress, at_once=2 if mesh is None else 1) as progress:
        pooled = progress.start("Wasserstein-flow PDE", _flow_limit, config, objective, limits, finite)
        trained = progress.start("Transformers", _flow_finite, config, objective, finite, solves=len(finite))
        members = progress.start("the PDE's replicates", _flow_replicates, config, objective, limits)
        limit = Replicates(pooled.result(), members.result()).raise_if_failed()
        solutions = trained.result()
        found = [
            progress.start(f"distances at {name}", _compare, solution, limit, gap_mesh)
            for name, solution in zip(names, solutions, strict=True)
        ]
        gaps = tuple(each.result() for each in found)
        return LimitResult(config, _on_one_device(config, objective), limit, solutions, gaps)


def _flow_limit(meter, config: LimitConfig, objective: Objective, limits, finite) -> FlowSolution:
    """The PDE's flow from all replicates, with the finite models' particles as tracers."""
    start = pool(limits).with_tracers(*finite)
    solution = flow(objective, start, config.taus, rtol=config.rtol, progress_meter=meter, throw=False)
    return _on_one_device(config, solution)


def _flow_finite(
    meter, config: LimitConfig, objective: Objective, models: Sequence[Transformer]
) -> tuple[FlowSolution, ...]:
    """The flows of the finite models."""
    solutions = flow_many(objective, models, config.taus, rtol=config.rtol, progress_meter=meter)
    return tuple(_on_one_device(config, solution) for solution in solutions)


def _flow_replicates(_, config: LimitConfig, objective: Objective, limits) -> FlowSolution:
    """The flow of each replicate alone."""
    return _on_one_device(config, flow_each(objective, limits, config.taus, rtol=config.rtol))


def _compare(_, solution: FlowSolution, limit: Replicates, mesh: Mesh | None) -> Gap:
    return gap(solution, limit, mesh=mesh)


def _on_one_device(config: LimitConfig, tree: _Tree) -> _Tree:
    """The arrays on one device, where gaps are computed."""
    return tree if config.mesh is None else gather(tree)
