"""Rates: how the gaps between finite Transformers and their limit fall with depth and width."""

import jax
import jax.numpy as jnp

from .. import prompts as data
from ..encoders import Average, Perceptron, SoftmaxAttention
from ..models import AveragedODE
from ..objective import Objective
from ._progress import Progress
from ._rates_config import PATHS as PATHS, RatesConfig as RatesConfig, check
from ._rates_gaps import Excess, Gaps, Noise, coupling_gap, gaps_of, noise_of
from ._rates_result import KINDS as KINDS, RatesResult as RatesResult
from ._rates_runs import (
    Clock,
    Course,
    Pack,
    flow_all,
    flow_limit,
    own_particles,
    parts,
    starts,
    train_all,
    train_limit,
)
from ._sizes import Size, together

# Compiling a program takes about as long as so many velocities of one particle on 16 prompts.
_COMPILING = 2**20


def run(config: RatesConfig, *, show_progress: bool | None = None) -> RatesResult:
    """Solve the limit with the finite models' particles as tracers, then every size, and again for each optimiser.

    **Arguments:**

    - `config`: [`wgf.experiments.RatesConfig`][].
    - `show_progress`: whether to draw a progress bar; None for one where standard error is a terminal.

    **Returns:** [`wgf.experiments.RatesResult`][].

    **Raises:** `ValueError` naming the option that cannot be used, before anything is compiled.
    """
    check(config)
    data_key, limit_key, key = jax.random.split(jax.random.key(config.seed), 3)
    prompts = data.linear_regression(data_key, batch=config.batch, examples=config.examples, dim=config.dim)
    encoder = Average(
        SoftmaxAttention(prompts.token_dim, key_dim=config.key_dim), Perceptron(prompts.token_dim, jnp.tanh)
    )
    objective = Objective(prompts, config.weight_decay)
    limit = parts(encoder, config.scale, config.reference, config.depth_steps, config.replicates, limit_key)
    # Kutta's rule asks for four velocities a step.
    groups = (
        together(config.sizes(), _COMPILING // (4 * config.steps * config.seeds)),
        together(config.trained(), _COMPILING // (config.updates * config.seeds)) if config.optimisers else [],
    )
    flow_packs, train_packs = (
        [starts(encoder, config.scale, sizes, config.seeds, jax.random.fold_in(key, n)) for n, sizes in enumerate(some)]
        for some in groups
    )
    found, noise = {}, {}
    with Progress(2 * len(flow_packs) + 1 + len(config.optimisers) * (1 + len(train_packs)), show_progress) as progress:
        found["flow"], noise["flow"] = _flow(config, objective, limit, flow_packs, progress)
        for name in config.optimisers:
            found[name], noise[name] = _train(config, name, objective, limit, train_packs, progress)
    return RatesResult(config, float(prompts.label_rms()), found, noise)


def _flow(
    config: RatesConfig, objective: Objective, models: list[AveragedODE], packs: list[Pack], progress: Progress
) -> tuple[dict[Size, Gaps], Noise]:
    """The gaps of all sizes under the flow: those of particles on the grid alone."""
    clock, grid = Clock(config.tau, config.steps), set(config.grid())
    own = {size: p for pack in packs for size, p in own_particles(pack, pack.models.measure.particles).items()}
    with progress.stage("the limit, with tracers"):
        limit = flow_limit(objective, models, {size: own[size] for size in sorted(grid)}, clock)
    noise = noise_of(objective, limit.reference, limit.transport)
    excess = Excess(limit, max(config.widths), config.cloud, config.seed)
    found: dict[Size, Gaps] = {}
    for pack in packs:
        with progress.stage(f"flow: {_shown(pack)}"):
            ends = flow_all(objective, pack.models, clock)
            moved = own_particles(pack, ends.particles)
            gaps = {s: gaps_of(objective, e, limit.reference, noise) for s, e in pack.split(ends).items()}
        with progress.stage(f"distances: {_shown(pack)}"):
            for size in grid & set(pack.sizes):
                twins = limit.twins[size]
                coupling = coupling_gap(moved[size], twins, noise.coupling)
                gaps[size] = gaps[size]._replace(coupling=coupling, excess=excess(size, moved[size], twins))
        found |= gaps
    return found, noise


def _train(
    config: RatesConfig,
    name: str,
    objective: Objective,
    models: list[AveragedODE],
    packs: list[Pack],
    progress: Progress,
) -> tuple[dict[Size, Gaps], Noise]:
    """The gaps of outputs, risk and Q under an optimiser, to the limit under the same."""
    decoupled = jnp.asarray(config.decoupled if name == "adamw" else 0.0)
    course = Course(config.learning_rate, config.epsilon, decoupled, config.updates)
    with progress.stage(f"{name}: the limit"):
        reference = train_limit(objective, models, course)
    noise = noise_of(objective, reference)
    found: dict[Size, Gaps] = {}
    for pack in packs:
        with progress.stage(f"{name}: {_shown(pack)}"):
            ends = pack.split(train_all(objective, pack.models, course))
            found |= {size: gaps_of(objective, end, reference, noise) for size, end in ends.items()}
    return found, noise


def _shown(pack: Pack) -> str:
    return ", ".join(f"{depth} x {width}" for depth, width in pack.sizes)
