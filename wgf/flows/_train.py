"""`train`: models trained by an Optax optimiser."""

import os
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._backend.canonical import canonical
from .._backend.mesh import on_own_mesh
from .._checks import at_least, check_memory, flag, random_key, shown
from ._geometry.finite_volume import FiniteVolume
from ._run.training import train_in
from ._solution import RESULTS, TrainSolution, raise_if
from ._training import Carry, Training
from ._velocity import check_posed, geometry_of


@on_own_mesh
def train(
    objective: Callable[[Any], Float[Array, ""]],
    model: PyTree,
    optimiser: optax.GradientTransformation,
    *,
    steps: int,
    save_every: int | None = None,
    batch: int | None = None,
    key: PRNGKeyArray | None = None,
    directory: str | os.PathLike | None = None,
    throw: bool = True,
) -> TrainSolution:
    r"""Train by an optimiser on the mean-field gradient \( -v = LM\,\nabla Q \) (of a plain module: ∇Q).

    In this scale a step does not shrink as the model grows: `optax.sgd(h)` is the explicit Euler scheme of step h for
    [`wgf.flow`][], for any width and depth, and converges to it at first order in h.

    **Arguments:**

    - `objective`, `model`: as in [`wgf.flow`][], plain modules and functions included. A model's tracers do not move.
    - `optimiser`: any Optax gradient transformation. The objective's weight decay is part of the gradient;
      `optax.adamw` adds a decoupled one of its own. Those that need the objective (`optax.lbfgs`, `optax.polyak_sgd`,
      the line searches, `optax.contrib.reduce_on_plateau`) get `value`, `grad` and `value_fn` of c Q, with c the number
      of particles of positive mass (1 for a plain module). If masses are equal, the gradient of c Q is the mean-field
      gradient. The `f_min` of `polyak_sgd` is therefore the least value of c Q. With `batch`, Q is that of the batch.
    - `steps`: the number of updates.
    - `save_every`: the number of updates between saves; must divide `steps`. The start is saved too. Default: `steps`.
    - `batch`: the number of prompts drawn for each update, with replacement, by their weights. Default: all prompts.
      Needs `key`, and an objective with a method `minibatch(key, size) -> objective`, such as [`wgf.Objective`][].
    - `key`: the random key of the batches.
    - `directory`: a folder that keeps the training: `saves/INDEX.npz` as soon as it is reached. After a kill the same
      call resumes from the last save, and ends with the same numbers bit for bit. More `steps` continue a training that
      has ended. `solution.npz` holds the solution for [`wgf.load`][]. The folder holds one problem, and is compared
      with the call as that of [`wgf.run`][] is. Not for `jit`.
    - `throw`: whether a run raises if numbers are no longer finite.

    **Returns:** [`wgf.flows.TrainSolution`][].

    **Raises:** `ValueError` if a count is below 1, `save_every` does not divide `steps`, `batch` is given without `key`
    or with an objective that has no `minibatch`, or the model's measure is on a grid; as [`wgf.run`][] does if the
    directory holds another problem or another process uses it; `eqx.EquinoxRuntimeError` if numbers are no longer
    finite and `throw=True`.
    """
    check_posed(objective, model)
    throw = flag("throw", throw)
    if isinstance(optimiser, type) or not all(callable(getattr(optimiser, name, None)) for name in ("init", "update")):
        raise ValueError(
            f"`optimiser` must be an Optax gradient transformation, e.g. optax.adam(1e-2); got {shown(optimiser)}."
        )
    steps = at_least("steps", steps, 1)
    save_every = steps if save_every is None else at_least("save_every", save_every, 1)
    moved = sum(leaf.size for leaf in jax.tree.leaves(geometry_of(model).parameters(model)))
    check_memory(each=moved, steps=steps // save_every)
    if steps % save_every:
        raise ValueError(f"`save_every` must divide `steps` = {steps}; got {save_every}.")
    batch = None if batch is None else at_least("batch", batch, 1)
    if batch is not None and key is None:
        raise ValueError("`key` must be given with `batch`, to draw prompts; got None.")
    if batch is not None and not hasattr(objective, "minibatch"):
        raise ValueError(f"`objective` must have a method `minibatch(key, size)` for `batch`; got {shown(objective)}.")
    if isinstance(geometry_of(model), FiniteVolume):
        raise ValueError("`model` must hold particles or parameters, not weights on a grid, which `flow` moves.")
    key = None if key is None else random_key("key", key)
    objective, optimiser = canonical((objective, optimiser))
    training, saves = Training(objective, model, optimiser, batch, key, save_every), steps // save_every
    solution = _train(training, saves) if directory is None else train_in(directory, training, saves)
    return raise_if(solution, solution.result == RESULTS.not_finite) if throw else solution


@eqx.filter_jit
def _train(training: Training, saves: int) -> TrainSolution:
    def save(carry: Carry, _):
        carry = training.advance(carry)
        return carry, carry.parameters

    start = training.start()
    _, later = jax.lax.scan(save, start, length=saves)
    return training.collect(jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), start.parameters, later))
