"""A flow in segments of a few steps; each continues exactly where the one before it stopped."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._backend.precision import Module
from ..._finite import all_finite
from .._problem import Problem
from .._solution import COUNTS, RESULTS, translate
from .._state import State
from .._velocity import evaluate
from .resumable import resumable


class Snapshot(Module):
    """The state of a flow between two steps: all that its future depends on, and the counts of its steps."""

    tau: Float[Array, ""]
    next_tau: Float[Array, ""]
    state: State
    solver_state: PyTree
    controller_state: PyTree
    made_jump: Bool[Array, ""]
    stats: dict[str, Int[Array, ""]]


class Segment(Module):
    """The result of one segment.

    - `snapshot`: the state of the flow at the end.
    - `rows`: states at the problem's `taus`. Those in `reached` are new; the others are NaN.
    - `objective`, `dissipation`: at the snapshot.
    - `is_finite`: whether all numbers of the snapshot are finite, tracers included.
    - `result`: `successful` at the last τ, `stalled` before it.
    """

    snapshot: Snapshot
    rows: State
    reached: Bool[Array, " saves"]
    objective: Float[Array, ""]
    dissipation: Float[Array, ""]
    is_finite: Bool[Array, ""]
    result: RESULTS


@eqx.filter_jit
def begin(problem: Problem) -> tuple[Snapshot, diffrax.Event | None]:
    """The snapshot at the first τ, by a solve without steps, and the event of the steady stop."""
    start, *_, end = problem.taus
    with problem.as_real():
        solution = diffrax.diffeqsolve(
            problem.terms(),
            problem.solver,
            start,
            end,
            problem.dt0,
            problem.start(),
            problem.args,
            saveat=diffrax.SaveAt(t1=True, solver_state=True, controller_state=True),
            stepsize_controller=resumable(problem.controller, None, end),
            max_steps=0,
            adjoint=diffrax.RecursiveCheckpointAdjoint(checkpoints=1),
            throw=False,
        )
    assert solution.controller_state is not None
    controller_state, next_tau = solution.controller_state
    zero = jnp.zeros((), jnp.int32)
    snapshot = Snapshot(
        tau=start,
        next_tau=next_tau,
        state=problem.start(),
        solver_state=solution.solver_state,
        controller_state=controller_state,
        made_jump=jnp.asarray(False),
        stats=dict.fromkeys(COUNTS, zero),
    )
    # Arrays alone, strongly typed, so that every segment runs the same program.
    return jax.tree.map(_strong, snapshot), problem.event()


@eqx.filter_jit
def advance(problem: Problem, snapshot: Snapshot, event: diffrax.Event | None, steps: int) -> Segment:
    """Take at most `steps` steps."""
    taus, end = problem.taus, problem.taus[-1]
    first = snapshot.stats["num_steps"] == 0
    with problem.as_real():
        solution = diffrax.diffeqsolve(
            problem.terms(),
            problem.solver,
            snapshot.tau,
            end,
            None,
            snapshot.state,
            problem.args,
            # Saved times before this segment are read at its start, and dropped.
            saveat=diffrax.SaveAt(
                subs=(diffrax.SubSaveAt(ts=jnp.maximum(taus, snapshot.tau)), diffrax.SubSaveAt(t1=True)),
                solver_state=True,
                controller_state=True,
                made_jump=True,
            ),
            stepsize_controller=resumable(problem.controller, snapshot.next_tau, end),
            solver_state=snapshot.solver_state,
            controller_state=(snapshot.controller_state, snapshot.next_tau),
            made_jump=snapshot.made_jump,
            event=event,
            max_steps=steps,
            throw=False,
        )
    assert solution.ts is not None
    assert solution.ys is not None
    assert solution.controller_state is not None
    rows, final = solution.ys
    reached = jnp.isfinite(solution.ts[0]) & ((taus > snapshot.tau) | first)
    controller_state, next_tau = solution.controller_state
    after = Snapshot(
        tau=solution.ts[1][-1],
        next_tau=next_tau,
        state=jax.tree.map(lambda leaf: leaf[-1], final),
        solver_state=solution.solver_state,
        controller_state=controller_state,
        made_jump=jnp.asarray(solution.made_jump),
        stats={name: count + solution.stats[name] for name, count in snapshot.stats.items()},
    )
    now = evaluate(problem.geometry, problem.objective, after.state.place(problem.geometry, problem.model))
    return Segment(
        snapshot=jax.tree.map(_strong, after),
        rows=rows,
        reached=reached,
        objective=now.objective,
        dissipation=now.dissipation,
        is_finite=all_finite((after.state, now.objective, now.dissipation)),
        result=translate(solution.result),
    )


def _strong(leaf: Any) -> Any:
    return jnp.asarray(leaf, jnp.asarray(leaf).dtype) if eqx.is_array_like(leaf) else leaf
