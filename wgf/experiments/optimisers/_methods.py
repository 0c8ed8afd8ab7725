"""The training methods of `wgf optimisers`. Each runs all seeds at once."""

from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
from jaxtyping import Array, Float, Key, PyTree

from ...flows import FlowSolution, TrainSolution, flow, train, velocity
from ...models import Transformer
from ...objective import Objective


class OutputsAndRisk(NamedTuple):
    """The outputs, `[*runs, prompts]`, and the risk, `[*runs]`, of runs."""

    outputs: Array | np.ndarray
    risk: Array | np.ndarray


@eqx.filter_jit
def flows(objectives: Objective, models: Transformer, taus: Array, rtol: float) -> FlowSolution:
    """The gradient flow from every seed."""

    def solve(objective, model):
        return flow(objective, model, taus, rtol=rtol, atol=1e-2 * rtol, throw=False)

    return eqx.filter_vmap(solve)(objectives, models)


def descend(
    objectives: Objective,
    models: Transformer,
    step: float,
    updates: int,
    *,
    chunk: int,
    batch: int | None = None,
    keys: Key[Array, "seeds replicates"] | None = None,
) -> OutputsAndRisk:
    """Gradient descent from every seed, or SGD from every seed and replicate, in parts of `chunk` updates.

    Neither method has a state, so the parts give the same result as one run. One compiled program runs all parts.

    **Arguments:**

    - `objectives`, `models`: with a leading axis `[seeds]`.
    - `step`, `updates`: the learning rate and the number of updates.
    - `chunk`: the updates of one part; must divide `updates`.
    - `batch`, `keys`: the batch size of SGD and its keys; None for gradient descent.

    **Returns:** outputs and risk at the end of each part, with a leading axis `[updates / chunk]`.
    """
    if keys is not None:
        models = _repeat(models, keys.shape[1])
    ends = []
    for part in range(updates // chunk):
        drawn = None if keys is None else _fold_in(keys, part)
        models, end = _descent(objectives, models, jnp.asarray(step), chunk, batch, drawn)
        ends.append(end)
    return jax.tree.map(lambda *parts: jnp.stack(parts), *ends)


@eqx.filter_jit
def _descent(
    objectives: Objective,
    models: Transformer,
    step: Array,
    updates: int,
    batch: int | None,
    keys: Key[Array, "seeds replicates"] | None,
) -> tuple[Transformer, OutputsAndRisk]:
    def run(objective, model, key=None):
        solution = train(objective, model, optax.sgd(step), steps=updates, batch=batch, key=key, throw=False)
        return solution.model_at(-1), OutputsAndRisk(solution.outputs[-1], solution.risk[-1])

    if keys is None:
        return eqx.filter_vmap(run)(objectives, models)
    replicated = eqx.filter_vmap(run, in_axes=(None, eqx.if_array(0), 0))
    return eqx.filter_vmap(replicated)(objectives, models, keys)


def _repeat(models: Transformer, count: int) -> Transformer:
    arrays, rest = eqx.partition(models, eqx.is_array)
    spread = jax.tree.map(lambda a: jnp.broadcast_to(a[:, None], (a.shape[0], count, *a.shape[1:])), arrays)
    return eqx.combine(spread, rest)


def _fold_in(keys: Key[Array, "seeds replicates"], data: int) -> Key[Array, "seeds replicates"]:
    return jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, data)))(keys)


@eqx.filter_jit
def response(objectives: Objective, models: Transformer, step: float, updates: int) -> Float[Array, " seeds"]:
    r"""The linear response of gradient descent: SGD's outputs have variance \( V_1 / b \), to first order in the step.

    Let \( w_k \) be the prompt weights in step k of gradient descent, and \( S_{ki} = \partial y / \partial w_{ki} \)
    the derivatives of the outputs. With b prompts drawn with replacement, \( w_k \) is multinomial, with covariance
    \( (\mathrm{diag}\,\mu - \mu\mu^\top)/b \). So \( V_1 = \sum_k \big(\sum_i \mu_i S_{ki}^2 -
    (\sum_i \mu_i S_{ki})^2\big) \), averaged over the outputs. It shares no random number with SGD and has no free
    parameter. As the step goes to zero, \( V_1 \) is proportional to it.
    """

    def of_seed(objective: Objective, model: Transformer) -> Array:
        masses = objective.prompts.weights

        def outputs(weights: Float[Array, "updates prompts"]) -> Float[Array, " prompts"]:
            def update(particles, row):
                weighted = eqx.tree_at(lambda o: o.prompts.weights, objective, row)
                return optax.tree.add_scale(particles, step, velocity(weighted, model.with_particles(particles))), None

            particles, _ = jax.lax.scan(update, model.measure.particles, weights)
            return objective.outputs(model.with_particles(particles))

        slopes = jax.jacrev(outputs)(jnp.broadcast_to(masses, (updates, masses.size)))
        spread = jnp.sum(slopes**2 * masses[None, None], -1) - jnp.sum(slopes * masses[None, None], -1) ** 2
        return objective.prompts.expect(jnp.sum(spread, -1))

    return eqx.filter_vmap(of_seed)(objectives, models)


class AdamParameters(NamedTuple):
    """Adam's parameters, arrays of one shape. `decay` is AdamW's decoupled weight decay."""

    rate: Array
    b1: Array
    b2: Array
    epsilon: Array
    decay: Array


@eqx.filter_jit
def adam(
    objectives: Objective, models: Transformer, parameters: AdamParameters, updates: int, saves: int
) -> TrainSolution:
    """Adam from every seed, with every set of parameters `[variants]`: leading axes `[variants, seeds]`.

    The objectives have leading axes `[variants, seeds]`, the models `[seeds]`.
    """

    def run(parameters: AdamParameters, objective: Objective, model: Transformer) -> TrainSolution:
        rate, b1, b2, epsilon, decay = parameters
        optimiser = optax.adamw(rate, b1, b2, epsilon, weight_decay=decay)  # pyright: ignore[reportArgumentType]
        return train(objective, model, optimiser, steps=updates, save_every=updates // saves, throw=False)

    seeds = eqx.filter_vmap(run, in_axes=(None, eqx.if_array(0), eqx.if_array(0)))
    return eqx.filter_vmap(seeds, in_axes=(0, eqx.if_array(0), None))(parameters, objectives, models)


@eqx.filter_jit
def normalised_flow(
    objectives: Objective, models: Transformer, tau: float, epsilon: float, decay: Array
) -> OutputsAndRisk:
    r"""The limit of Adam as its learning rate goes to zero: \( \dot\theta = v/(|v| + \epsilon) - \lambda\theta \).

    The equation holds per coordinate. At fixed β, Adam's two means average over a fixed number of updates. That time
    goes to zero with the learning rate, so both means become functions of the current gradient. Diffrax solves it.
    """

    def of_seed(objective: Objective, model: Transformer) -> OutputsAndRisk:
        def field(tau, particles, args) -> PyTree[Array]:
            move = velocity(objective, model.with_particles(particles))
            return jax.tree.map(lambda v, p: v / (jnp.abs(v) + epsilon) - decay * p, move, particles)

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Tsit5(),
            0.0,
            tau,
            None,
            model.measure.particles,
            stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-6, norm=optx.max_norm),
            max_steps=16384,
            throw=False,
        )
        assert solution.ys is not None
        there = diffrax.is_okay(solution.result)
        last = model.with_particles(jax.tree.map(lambda leaf: jnp.where(there, leaf[-1], jnp.nan), solution.ys))
        outputs = objective.outputs(last)
        return OutputsAndRisk(outputs, objective.score(outputs))

    return eqx.filter_vmap(of_seed)(objectives, models)
