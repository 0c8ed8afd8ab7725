"""The training of one condition of `wgf residual`: all seeds at once, by gradient flow or by gradient descent."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from ...companions import (
    ResidualTransformer,
    SquareLoss,
    attention_spectrum,
    linear_rate_bound,
    spectrum,
    step_size,
)
from ...flows import AbstractSolution, FlowSolution, TrainSolution, flow, train
from ._condition import Condition, Runs
from ._config import ResidualConfig


def train_condition(_, config: ResidualConfig, condition: Condition) -> Runs:
    """Train and measure every seed of a condition. The first argument, a progress meter, is not used."""
    loss, model = _draw(config, condition)
    horizon = config.horizon if condition.depth == 1 else config.deep_horizon
    # The tokens alone set the time: it is the same with and without residual connections, and for all seeds.
    time = horizon / float(jnp.mean(spectrum(loss.tokens[:, 0]).least ** 2))
    solve = _descend if condition.descent else _flow
    times, measured = solve(config, loss, model, time)
    return Runs(condition, np.asarray(times), *map(np.asarray, measured))


def _draw(config: ResidualConfig, condition: Condition) -> tuple[SquareLoss, ResidualTransformer]:
    """The loss and the model of every seed. Data and draws are the same with and without residual connections."""
    shape = (1, condition.length, config.dim)

    def draw(key: PRNGKeyArray) -> tuple[SquareLoss, ResidualTransformer]:
        tokens, targets, weights = jax.random.split(key, 3)
        model = ResidualTransformer(
            config.dim,
            config.hidden,
            depth=condition.depth,
            residual=condition.residual,
            slope=condition.slope,
            key=weights,
        )
        loss = SquareLoss(jax.random.normal(tokens, shape), jax.random.normal(targets, shape), condition.temperature)
        return loss, model

    # Draws differ between lengths, temperatures and depths: the regression of the rates assumes independent runs.
    key = jax.random.key(config.seed)
    for label in (condition.length, config.temperatures.index(condition.temperature), condition.depth):
        key = jax.random.fold_in(key, label)
    return eqx.filter_vmap(draw)(jax.random.split(key, config.seeds))


def _flow(config: ResidualConfig, loss: SquareLoss, model: ResidualTransformer, time: float):
    taus = jnp.linspace(0, time, config.saves)
    solution = _flows(loss, model, taus, jnp.asarray(config.rtol))
    return jnp.broadcast_to(taus, (config.seeds, config.saves)), _measure(loss, solution)


@eqx.filter_jit
def _flows(loss: SquareLoss, model: ResidualTransformer, taus: Array, rtol: Array) -> FlowSolution:
    """The gradient flow of every seed."""

    def solve(loss, model):
        return flow(loss, model, taus, rtol=rtol, atol=1e-3 * rtol, throw=False)

    return eqx.filter_vmap(solve)(loss, model)


def _descend(config: ResidualConfig, loss: SquareLoss, model: ResidualTransformer, time: float):
    steps = jax.vmap(lambda loss, model: step_size(loss, model, config.step))(loss, model)
    every = max(1, round(time / (float(jnp.mean(steps)) * (config.saves - 1))))
    solution = _descents(loss, model, steps, every, config.saves)
    return steps[:, None] * solution.steps, _measure(loss, solution)


@eqx.filter_jit
def _descents(loss: SquareLoss, model: ResidualTransformer, steps: Array, every: int, saves: int) -> TrainSolution:
    """Gradient descent of every seed, at the learning rates `steps`."""

    def solve(loss, model, step):
        return train(loss, model, optax.sgd(step), steps=every * (saves - 1), save_every=every, throw=False)

    return eqx.filter_vmap(solve)(loss, model, steps)


def _measure(loss: SquareLoss, solution: AbstractSolution) -> tuple[Array, ...]:
    """L, −dL/dτ, the guaranteed rate and the extreme singular values along training."""
    return solution.objective, solution.dissipation, *_conditioning(loss, solution.models)


@eqx.filter_jit
def _conditioning(loss: SquareLoss, models: ResidualTransformer) -> tuple[Array, Array, Array]:
    def at(loss, model):
        values = attention_spectrum(loss, model)
        return linear_rate_bound(loss, model), values.least, values.greatest

    (loss_arrays, model_arrays), static = eqx.partition((loss, models), eqx.is_array)

    def of_seed(seed):
        loss_arrays, model_arrays = seed
        return jax.lax.map(lambda arrays: at(*eqx.combine((loss_arrays, arrays), static)), model_arrays)

    # One after another: on a CPU, batched decompositions that run at the same time can wait for each other for ever.
    return jax.lax.map(of_seed, (loss_arrays, model_arrays))
