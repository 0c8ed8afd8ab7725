"""The runs behind the experiment of optimisers, each for all seeds at once."""

from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix as optx
from jaxtyping import Array, Float, Key, PyTree

from ..flows import FlowSolution, TrainSolution, flow, train, velocity
from ..models import Transformer
from ..objective import Objective


class End(NamedTuple):
    """Where runs end: `outputs`, `[*runs, prompts]`, and `risk`, `[*runs]`."""

    outputs: Array
    risk: Array


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
) -> End:
    """Gradient descent from every seed, or with `batch` and `keys` `[seeds, replicates]` SGD; in runs of `chunk`.

    Neither has a memory, so a run is as good as its parts, and one compiled program serves all steps.

    **Returns:** the ends of the parts, with a leading axis `[updates / chunk]`.
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
) -> tuple[Transformer, End]:
    def run(objective, model, key=None):
        solution = train(objective, model, optax.sgd(step), steps=updates, batch=batch, key=key, throw=False)
        return solution.model_at(-1), End(solution.outputs[-1], solution.risk[-1])

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
    r"""What one prompt a step would add to the outputs' variance, to first order: \( V_1 \), so that SGD has V₁/b.

    The outputs of gradient descent whose step k weights the prompts by \( w_k \) have derivatives
    \( S_{ki} = \partial y / \partial w_{ki} \); drawing b prompts with replacement makes \( w_k \) multinomial, of
    covariance \( (\mathrm{diag}\,\mu - \mu\mu^\top)/b \). So \( V_1 = \sum_k \big(\sum_i \mu_i S_{ki}^2 -
    (\sum_i \mu_i S_{ki})^2\big) \), in the mean over outputs. It shares no random number with SGD and has no free
    parameter; \( V_1 \) is in proportion to the step as it goes to zero.
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


class Adam(NamedTuple):
    """Adam's numbers, each an array of the same shape; `decay` is AdamW's, decoupled from the gradient."""

    rate: Array
    b1: Array
    b2: Array
    epsilon: Array
    decay: Array


@eqx.filter_jit
def adam(objectives: Objective, models: Transformer, numbers: Adam, updates: int, saves: int) -> TrainSolution:
    """Adam from every seed with every set of numbers `[variants]`: leading axes `[variants, seeds]`.

    The objectives have leading axes `[variants, seeds]`, the models `[seeds]`.
    """

    def run(numbers: Adam, objective: Objective, model: Transformer) -> TrainSolution:
        rate, b1, b2, epsilon, decay = numbers
        optimiser = optax.adamw(rate, b1, b2, epsilon, weight_decay=decay)  # pyright: ignore[reportArgumentType]
        return train(objective, model, optimiser, steps=updates, save_every=updates // saves, throw=False)

    seeds = eqx.filter_vmap(run, in_axes=(None, eqx.if_array(0), eqx.if_array(0)))
    return eqx.filter_vmap(seeds, in_axes=(0, eqx.if_array(0), None))(numbers, objectives, models)


@eqx.filter_jit
def normalised_flow(objectives: Objective, models: Transformer, tau: float, epsilon: float, decay: Array) -> End:
    r"""What Adam comes to as its learning rate vanishes, \( \dot\theta = v/(|v| + \epsilon) - \lambda\theta \).

    Coordinate by coordinate. With the numbers β fixed, Adam remembers a number of updates that does not grow: a
    time that vanishes with the learning rate, so that both its means are of the present gradient. Solved by Diffrax.
    """

    def of_seed(objective: Objective, model: Transformer) -> End:
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
        return End(outputs, objective.score(outputs))

    return eqx.filter_vmap(of_seed)(objectives, models)
