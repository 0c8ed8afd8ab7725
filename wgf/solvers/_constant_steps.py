"""Explicit Runge–Kutta methods at constant steps in depth, as loops over the rows of a tableau: fast to compile."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ._dense_output import DenseOutput

Batch = Float[Array, "batch token_dim length"]
Field = Callable[[ArrayLike, Batch], Batch]


def march(field: Field, solver: diffrax.AbstractERK, steps: int, start: Batch) -> Batch:
    """Solve from depth 0 to 1; return the end."""
    return _march(field, solver, steps, start, (0, 1), dense=False)[0]


def march_densely(field: Field, solver: diffrax.AbstractERK, steps: int, start: Batch, t0: int, t1: int) -> DenseOutput:
    """Solve from depth `t0` to `t1`, forward or backward; return the solver's interpolation between its steps."""
    before, after, slopes = _march(field, solver, steps, start, (t0, t1), dense=True)[1]
    # As in Diffrax, time runs forward: minus depth if depth decreases.
    direction = 1 if t0 < t1 else -1
    times = direction * np.linspace(t0, t1, steps + 1).astype(start.dtype)
    return DenseOutput(
        knots=jnp.asarray(times),
        size=steps + 1,
        infos={"y0": before, "y1": after, "k": slopes * ((t1 - t0) / steps)},
        interpolation=solver.interpolation_cls,
        direction=direction,
    )


def march_by_stages(
    field: Field, solver: diffrax.AbstractERK, steps: int, start: Batch, offsets: Float[Array, "steps stages ..."]
) -> tuple[Batch, Float[Array, "steps stages ..."]]:
    """Solve from depth 0 to 1 with an offset added to each slope; return the end and the tokens of each stage."""
    return _march(field, solver, steps, start, (0, 1), dense=False, offsets=offsets)


def _march(
    field: Field,
    solver: diffrax.AbstractERK,
    steps: int,
    start: Batch,
    ends: tuple[int, int],
    *,
    dense: bool,
    offsets: Float[Array, "steps stages ..."] | None = None,
) -> tuple[Batch, Any]:
    """The end of the solve; if `dense`, the start, the end and the stage slopes of each step; the stages of offsets.

    Stages run in a loop over the rows of the tableau, so the field is compiled once. Each is checkpointed, so gradients
    store the tokens of every stage and the intermediate values of one.
    """
    tableau = solver.tableau
    assert isinstance(tableau, diffrax.ButcherTableau)
    # A last stage of weight zero in the solution serves error control and interpolation only.
    stages = tableau.num_stages - int(tableau.b_sol[-1] == 0 and not dense)
    t0, span = ends[0], ends[1] - ends[0]
    size = span / steps
    nodes = np.concatenate([[0.0], tableau.c])[:stages].astype(start.dtype)
    rows = np.zeros((stages, stages), start.dtype)
    for stage, row in enumerate(tableau.a_lower[: stages - 1], start=1):
        rows[stage, :stage] = row * size
    solution = (tableau.b_sol[:stages] * size).astype(start.dtype)

    def step(tokens, inputs):
        index, offsets = inputs

        @jax.checkpoint
        def stage(slopes, inputs):
            number, node, row, offset = inputs
            there = tokens + jnp.tensordot(row, slopes, 1)
            slope = field(t0 + span * (index + node) / steps, there)
            if offset is None:
                return slopes.at[number].set(slope), None
            return slopes.at[number].set(slope + offset), there

        slopes = jnp.zeros((stages, *tokens.shape), tokens.dtype)
        slopes, passed = jax.lax.scan(stage, slopes, (jnp.arange(stages), nodes, rows, offsets))
        after = tokens + jnp.tensordot(solution, slopes, 1)
        return after, (tokens, after, slopes) if dense else passed

    return jax.lax.scan(step, start, (jnp.arange(steps, dtype=start.dtype), offsets))
