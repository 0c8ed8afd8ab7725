"""Adam and AdamW in `wgf optimisers`: the distance from their own limits."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...flows import TrainSolution
from ...models import Transformer
from ...objective import Objective
from ._config import OptimisersConfig
from ._methods import AdamParameters, OutputsAndRisk, adam, normalised_flow
from ._order import Order, distance, distance_at_equal_risk

Problem = tuple[Objective, Transformer]
"""The objectives and models of all seeds, stacked."""
OPTAX_EPSILON = 1e-8
"""Optax's default epsilon of Adam."""


def adam_orders(
    _, config: OptimisersConfig, problem: Problem, flowed: OutputsAndRisk
) -> tuple[Order, Order, Order, np.ndarray]:
    """The orders of Adam, of AdamW and of Adam at Optax's epsilon, and the distance of both limits from the flow.

    Adam minimises the objective with its weight decay. AdamW has the same weight decay of its own, and minimises the
    objective without it.
    """
    rates = np.array([config.adam_tau / count for count in config.adam_updates])
    orders, apart = [], []
    for objectives, decay in variants(config, problem[0]):
        limit = normalised_flow(objectives, problem[1], config.adam_tau, config.epsilon, jnp.asarray(decay))
        ended = _outputs_by_rate(config, objectives, problem[1], decay, config.epsilon)
        orders.append(Order(rates, distance(ended, limit.outputs)))
        apart.append(distance_at_equal_risk(np.asarray(limit.risk)[None], np.asarray(limit.outputs)[None], flowed)[0])
    ended = _outputs_by_rate(config, *problem, 0.0, OPTAX_EPSILON)
    sharp = Order(rates[:-1] - rates[-1], distance(ended[:-1], ended[-1]))
    return orders[0], orders[1], sharp, np.stack(apart)


def variants(config: OptimisersConfig, objectives: Objective) -> tuple[tuple[Objective, float], ...]:
    """The objectives and the decoupled weight decay of Adam, then of AdamW."""
    bare = eqx.tree_at(lambda o: o.weight_decay, objectives, jnp.zeros_like(objectives.weight_decay))
    return (objectives, 0.0), (bare, config.weight_decay)


def run_adam(
    config: OptimisersConfig,
    objectives: list[Objective],
    models: Transformer,
    rates: list[float],
    decay: float | list[float],
    epsilon: float,
    updates: int,
    every: int,
) -> TrainSolution:
    """Adam for several learning rates at once, each with its own objectives: leading axes `[rates, seeds]`."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *objectives)
    rows = np.broadcast_arrays(np.array(rates), *config.betas, epsilon, decay)
    parameters = AdamParameters(*(jnp.asarray(row, jnp.result_type(float)) for row in rows))
    return adam(stacked, models, parameters, updates, updates // every)


def _outputs_by_rate(
    config: OptimisersConfig, objectives: Objective, models: Transformer, decay: float, epsilon: float
) -> np.ndarray:
    """The outputs at `adam_tau` for every learning rate, `[rates, seeds, prompts]`.

    All rates run at once, for the number of updates of the smallest one. Each is read when it has reached `adam_tau`.
    """
    counts = config.adam_updates
    shared = math.gcd(*counts)
    rates = [config.adam_tau / count for count in counts]
    every = [objectives] * len(counts)
    outputs = np.asarray(run_adam(config, every, models, rates, decay, epsilon, max(counts), shared).outputs)
    return np.stack([outputs[index, :, count // shared] for index, count in enumerate(counts)])
