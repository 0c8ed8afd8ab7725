"""The run of `wgf optimisers`."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PRNGKeyArray

from ..._checks import check_memory
from ...encoders import Average, Perceptron, SoftmaxAttention
from ...measures import Gaussian
from ...models import Transformer
from ...objective import Objective
from ...prompts import linear_regression
from .._parts import Parts
from .._progress import Progress
from .._settings import with_settings
from ._adam import OPTAX_EPSILON, Problem, adam_orders, run_adam, variants
from ._config import OptimisersConfig, check
from ._methods import OutputsAndRisk, descend, flows, response
from ._order import BatchNoise, LongRun, Order, distance, distance_at_equal_risk
from ._result import OptimisersResult


@with_settings
def run(config: OptimisersConfig, *, show_progress: bool | None = None, parts: Parts | None = None) -> OptimisersResult:
    """Run gradient descent, SGD, Adam and AdamW at every step, and the long runs.

    **Arguments:**

    - `config`: [`wgf.experiments.OptimisersConfig`][].
    - `show_progress`: whether to draw a progress bar; None for a bar on a terminal and in a notebook.
    - `parts`: [`wgf.experiments.Parts`][], where finished parts are kept and read; None for nowhere.

    **Returns:** [`wgf.experiments.OptimisersResult`][].

    **Raises:** `ValueError` that names the option that cannot be used, before anything is compiled.
    """
    check(config)
    check_memory(depth=config.depth, width=config.width, seeds=config.seeds, replicates=config.replicates)
    check_memory(adam_updates=max(config.adam_updates), seeds=config.seeds)
    draw_key, sgd_key, path_key = jax.random.split(jax.random.key(config.seed), 3)
    draw = lambda key: _draw_problem(config, key)  # noqa: E731
    problem = eqx.filter_vmap(draw)(jax.random.split(draw_key, config.seeds))
    with Progress(5, show_progress, parts=parts) as progress:
        flowed, along = progress.run("gradient flow", _flow, config, problem)
        descent = progress.run("gradient descent", _descent_order, config, problem, flowed)
        by_step, by_batch = progress.run("noise of SGD", _noise, config, problem, sgd_key)
        adam, adamw, sharp, apart = progress.run("Adam and AdamW", adam_orders, config, problem, along)
        long_runs = progress.run("long runs", _long_runs, config, problem, along, path_key)
    label_rms = float(np.sqrt(np.mean(np.asarray(problem[0].prompts.labels) ** 2)))
    return OptimisersResult(config, label_rms, descent, by_step, by_batch, adam, adamw, sharp, apart, long_runs)


def _draw_problem(config: OptimisersConfig, key: PRNGKeyArray) -> tuple[Objective, Transformer]:
    data_key, init_key = jax.random.split(key)
    prompts = linear_regression(data_key, batch=config.prompts, examples=config.examples, dim=config.dim)
    encoder = Average(SoftmaxAttention(prompts.token_dim, key_dim=2), Perceptron(prompts.token_dim, jnp.tanh))
    law = Gaussian(encoder, config.scale)
    model = Transformer(encoder, law.layered(config.depth, config.width, init_key))
    return Objective(prompts, config.weight_decay), model


def _flow(_, config: OptimisersConfig, problem: Problem) -> tuple[np.ndarray, OutputsAndRisk]:
    """The flow's outputs at `tau`, `[seeds, prompts]`, and the flow at times up to ten times `long_tau`."""
    along = np.geomspace(0.01, 10 * config.long_tau, 160)
    taus = np.unique(np.concatenate([[0.0, config.tau], along]).astype(np.float32))
    solution = flows(*problem, jnp.asarray(taus), 1e-6)
    outputs = np.asarray(solution.outputs)
    return outputs[:, np.searchsorted(taus, np.float32(config.tau))], OutputsAndRisk(outputs, np.asarray(solution.risk))


def _descent_order(_, config: OptimisersConfig, problem: Problem, flowed: np.ndarray) -> Order:
    errors = [distance(_descend(config, problem, step).outputs[-1], flowed) for step in config.steps]
    return Order(np.array(config.steps), np.stack(errors))


def _descend(config: OptimisersConfig, problem: Problem, step: float, **options: Any) -> OutputsAndRisk:
    return descend(*problem, step, round(config.tau / step), chunk=config.chunk, **options)


def _noise(_, config: OptimisersConfig, problem: Problem, key: PRNGKeyArray) -> tuple[BatchNoise, BatchNoise]:
    """SGD at every step with the second batch size, and at the second step with every batch size."""
    step, batch = config.steps[1], config.batches[1]
    unit = np.asarray(response(*problem, step, round(config.tau / step))) / step

    def runs(points: Sequence[tuple[float, int]], x: Sequence[float | int], label: int) -> BatchNoise:
        variances = []
        for index, (h, b) in enumerate(points):
            keys = _replicates(config, jax.random.fold_in(jax.random.fold_in(key, label), index))
            end = _descend(config, problem, h, batch=b, keys=keys)
            outputs, risk = (np.var(np.asarray(part[-1], float), axis=1, ddof=1) for part in end)
            variances.append([outputs.mean(-1), risk])
        outputs, risk = (Order(np.array(x, float), np.stack(part)) for part in zip(*variances, strict=True))
        return BatchNoise(outputs, risk, np.stack([unit * h / b for h, b in points]))

    return (
        runs([(h, batch) for h in config.steps], config.steps, 0),
        runs([(step, b) for b in config.batches], config.batches, 1),
    )


def _replicates(config: OptimisersConfig, key: PRNGKeyArray) -> Key[Array, "seeds replicates"]:
    return jax.random.split(key, (config.seeds, config.replicates))


def _long_runs(
    _, config: OptimisersConfig, problem: Problem, flowed: OutputsAndRisk, key: PRNGKeyArray
) -> dict[str, LongRun]:
    """The long runs of all four methods, by name."""
    objectives, models = problem
    step, batch = config.long_tau / config.long_updates, config.batches[1]
    updates = np.arange(config.chunk, config.long_updates + 1, config.chunk)
    long: Any = {"updates": config.long_updates, "chunk": config.chunk}
    descent = descend(objectives, models, step, **long)
    noisy = descend(objectives, models, step, batch=batch, keys=_replicates(config, key), **long)
    adam, adamw = _long_adam(config, problem)
    ends = {
        f"gradient descent, h = {step:g}": descent,
        f"SGD, h = {step:g}, b = {batch}": jax.tree.map(lambda leaf: leaf[:, :, 0], noisy),
        f"Adam, h = {config.rate:g}": adam,
        f"AdamW, h = {config.rate:g}": adamw,
    }
    return {name: _compare(updates, end, flowed) for name, end in ends.items()}


def _long_adam(config: OptimisersConfig, problem: Problem) -> list[OutputsAndRisk]:
    """The long runs of Adam and of AdamW, with leading axis `[saves]`."""
    objectives, models = problem
    pair = variants(config, objectives)
    solution = run_adam(
        config,
        [objective for objective, _ in pair],
        models,
        [config.rate] * 2,
        [decay for _, decay in pair],
        OPTAX_EPSILON,
        config.long_updates,
        config.chunk,
    )
    return [
        OutputsAndRisk(*(jnp.swapaxes(part[index, :, 1:], 0, 1) for part in (solution.outputs, solution.risk)))
        for index in range(2)
    ]


def _compare(updates: np.ndarray, end: OutputsAndRisk, flowed: OutputsAndRisk) -> LongRun:
    risk, outputs = np.asarray(end.risk), np.asarray(end.outputs)
    return LongRun(updates, risk, distance_at_equal_risk(risk, outputs, flowed))
