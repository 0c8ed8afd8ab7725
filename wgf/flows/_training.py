"""The updates of an optimiser, from one save to the next."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._backend.precision import Module
from .._finite import finite_rows
from .._random import purpose
from ._curves import curves, repeat_model
from ._geometry.base import AbstractGeometry, prompt_weights
from ._optimiser_update import update as optimiser_update
from ._solution import RESULTS, TrainSolution
from ._velocity import evaluate, geometry_of


class Carry(NamedTuple):
    """All that the updates to come depend on."""

    parameters: PyTree[Array]
    state: optax.OptState
    key: PRNGKeyArray | None


class Training(Module):
    """A model, its objective and an optimiser: `save_every` updates between saves, on `batch` prompts or on all."""

    objective: Callable[[Any], Array]
    model: PyTree
    optimiser: optax.GradientTransformation
    batch: int | None
    key: PRNGKeyArray | None
    save_every: int = eqx.field(static=True)

    @property
    def geometry(self) -> AbstractGeometry:
        """Which parameters move."""
        return geometry_of(self.model)

    def start(self) -> Carry:
        """Before the first update."""
        parameters = self.geometry.parameters(self.model)
        key = None if self.key is None else purpose(self.key, "flows.train")
        return Carry(parameters, self.optimiser.init(parameters), key)

    def advance(self, carry: Carry) -> Carry:
        """The updates up to the next save."""
        return jax.lax.scan(lambda carry, _: (self._update(carry), None), carry, length=self.save_every)[0]

    def _update(self, carry: Carry) -> Carry:
        parameters, state, key = carry
        objective = self.objective
        if self.batch is not None and key is not None:
            key, draw_key = jax.random.split(key)
            objective: Any = objective.minibatch(draw_key, self.batch)  # pyright: ignore[reportFunctionMemberAccess]
        here = self.geometry.place(self.model, parameters)
        now = evaluate(self.geometry, objective, here)
        updates, state = optimiser_update(self.optimiser, state, self.geometry, objective, here, now)
        return Carry(optax.apply_updates(parameters, updates), state, key)

    def collect(self, parameters: PyTree[Array]) -> TrainSolution:
        """The solution from the parameters at all saves, with a leading axis `[saves]`."""
        saves = jax.tree.leaves(parameters)[0].shape[0]
        models = self.geometry.place(repeat_model(self.model, saves), parameters)
        saved = curves(self.geometry, self.objective, models)
        # Particles of weight zero do not enter Q.
        is_finite = jnp.all(finite_rows((parameters, saved)))
        return TrainSolution(
            steps=jnp.arange(saves) * self.save_every,
            models=models,
            objective=saved.objective,
            risk=saved.risk,
            dissipation=saved.dissipation,
            outputs=saved.outputs,
            prompt_weights=prompt_weights(self.objective),
            result=RESULTS.where(is_finite, RESULTS.successful, RESULTS.not_finite),
        )
