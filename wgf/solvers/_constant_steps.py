"""Explicit Runge–Kutta methods at constant steps in depth, as loops over the rows of a tableau: fast to compile."""

from collections.abc import Callable

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


def _march(
    field: Field, solver: diffrax.AbstractERK, steps: int, start: Batch, ends: tuple[int, int], *, dense: bool
) -> tuple[Batch, tuple[Array, ...]]:
    """The end of the solve and, if `dense`, the start, the end and the stage slopes of each step.

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

    def step(tokens, index):
        @jax.checkpoint
        def stage(slopes, inputs):
            number, node, row = inputs
            slope = field(t0 + span * (index + node) / steps, tokens + jnp.tensordot(row, slopes, 1))
            return slopes.at[number].set(slope), None

        slopes = jnp.zeros((stages, *tokens.shape), tokens.dtype)
        slopes, _ = jax.lax.scan(stage, slopes, (jnp.arange(stages), nodes, rows))
        after = tokens + jnp.tensordot(solution, slopes, 1)
        return after, (tokens, after, slopes) if dense else ()

    return jax.lax.scan(step, start, jnp.arange(steps, dtype=start.dtype))
