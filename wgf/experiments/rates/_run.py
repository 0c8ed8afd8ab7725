"""The run of `wgf rates`."""

import functools

import jax
import jax.numpy as jnp

from ... import prompts as data
from ..._checks import check_memory
from ...encoders import Average, Perceptron, SoftmaxAttention
from ...models import AveragedODE
from ...objective import Objective
from .._grouping import Size, group_by_compile_cost
from .._parts import Parts
from .._progress import Progress
from .._settings import with_settings
from ._config import RatesConfig, check
from ._gaps import ReferenceNoise, SeedGaps, coupling_gap, gaps_of, noise_of
from ._limit import LimitFlow, draw_replicates, flow_limit, train_limit
from ._padding import PaddedModels, draw_padded
from ._result import RatesResult
from ._training import FlowSchedule, TrainingSchedule, flow_all, train_all

_COMPILE_COST = 2**20
"""The compile time of a program, in velocities of one particle on 16 prompts."""


@with_settings
def run(config: RatesConfig, *, show_progress: bool | None = None, parts: Parts | None = None) -> RatesResult:
    """Solve the limit with the finite models' particles as tracers, then every size, and again for each optimiser.

    **Arguments:**

    - `config`: [`wgf.experiments.RatesConfig`][].
    - `show_progress`: whether to draw a progress bar; None for a bar on a terminal and in a notebook.
    - `parts`: [`wgf.experiments.Parts`][], where finished parts are kept and read; None for nowhere.

    **Returns:** [`wgf.experiments.RatesResult`][].

    **Raises:** `ValueError` that names the option that cannot be used, before anything is compiled.
    """
    check(config)
    check_memory(each=4 * config.depth_steps * (config.dim + 3), reference=config.reference)
    check_memory(depths=max(config.depths), widths=max(config.widths), seeds=config.seeds)
    data_key, limit_key, key = jax.random.split(jax.random.key(config.seed), 3)
    prompts = data.linear_regression(data_key, batch=config.batch, examples=config.examples, dim=config.dim)
    encoder = Average(
        SoftmaxAttention(prompts.token_dim, key_dim=config.key_dim), Perceptron(prompts.token_dim, jnp.tanh)
    )
    objective = Objective(prompts, config.weight_decay)
    limit = draw_replicates(encoder, config.scale, config.reference, config.depth_steps, config.replicates, limit_key)
    # Kutta's rule needs four velocities per step.
    flow_groups = group_by_compile_cost(config.sizes(), _COMPILE_COST // (4 * config.steps * config.seeds))
    train_groups = (
        group_by_compile_cost(config.trained(), _COMPILE_COST // (config.updates * config.seeds))
        if config.optimisers
        else []
    )
    to_flow, to_train = (
        [
            draw_padded(encoder, config.scale, sizes, config.seeds, jax.random.fold_in(key, n))
            for n, sizes in enumerate(groups)
        ]
        for groups in (flow_groups, train_groups)
    )
    found, noise = {}, {}
    count = 2 + len(to_flow) + len(config.optimisers) * (1 + len(to_train))
    with Progress(count, show_progress, parts=parts) as progress:
        found["flow"], noise["flow"] = _flow(config, objective, limit, to_flow, progress)
        for name in config.optimisers:
            found[name], noise[name] = _train(config, name, objective, limit, to_train, progress)
    return RatesResult(config, float(prompts.label_rms()), found, noise)


def _flow(
    config: RatesConfig,
    objective: Objective,
    models: list[AveragedODE],
    groups: list[PaddedModels],
    progress: Progress,
) -> tuple[dict[Size, SeedGaps], ReferenceNoise]:
    """The gaps of all sizes under the flow. The gaps of particles are measured on the grid only."""
    schedule, grid = FlowSchedule(config.tau, config.steps), set(config.grid())
    starts = {size: p for group in groups for size, p in group.unpad(group.models.measure.particles).items()}

    # The tracers are large. They are computed, or read, only if a gap is not yet there, and not kept in the end.
    @functools.cache
    def limit() -> LimitFlow:
        tracers = {size: starts[size] for size in sorted(grid)}
        name = "the limit, with tracers"
        return progress.run(name, lambda _: flow_limit(objective, models, tracers, schedule), is_temporary=True)

    noise = progress.run("noise of the limit", lambda _: noise_of(objective, limit().reference, limit().transport))

    def gaps(_, group: PaddedModels) -> dict[Size, SeedGaps]:
        ends = flow_all(objective, group.models, schedule)
        moved = group.unpad(ends.particles)
        found = {s: gaps_of(objective, e, limit().reference, noise) for s, e in group.split(ends).items()}
        for size in grid & set(group.sizes):
            coupling = coupling_gap(moved[size], limit().tracers[size], noise.coupling)
            found[size] = found[size]._replace(coupling=coupling)
        return found

    found: dict[Size, SeedGaps] = {}
    for group in groups:
        found |= progress.run(f"flow: {group}", gaps, group)
    return found, noise


def _train(
    config: RatesConfig,
    name: str,
    objective: Objective,
    models: list[AveragedODE],
    groups: list[PaddedModels],
    progress: Progress,
) -> tuple[dict[Size, SeedGaps], ReferenceNoise]:
    """The gaps of outputs, risk and Q under an optimiser, to the limit under the same optimiser."""
    decoupled = jnp.asarray(config.decoupled if name == "adamw" else 0.0)
    schedule = TrainingSchedule(config.learning_rate, config.epsilon, decoupled, config.updates)
    reference = progress.run(f"{name}: the limit", lambda _: train_limit(objective, models, schedule))
    noise = noise_of(objective, reference)

    def gaps(_, group: PaddedModels) -> dict[Size, SeedGaps]:
        ends = group.split(train_all(objective, group.models, schedule))
        return {size: gaps_of(objective, end, reference, noise) for size, end in ends.items()}

    found: dict[Size, SeedGaps] = {}
    for group in groups:
        found |= progress.run(f"{name}: {group}", gaps, group)
    return found, noise
