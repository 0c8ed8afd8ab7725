"""`run`: the solve of `flow` in segments, driven from the host, which a user watches, stops and resumes."""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..._backend.compat import multihost_utils
from ..._backend.host import on_host
from ..._backend.mesh import on_own_mesh
from ..._bars import bar
from ..._checks import at_least, flag, numbers, shown
from .._problem import Problem, initial_value_problem
from .._solution import RESULTS, FlowSolution
from .._state import State
from .cause import cause_of_failure
from .directory import RunDirectory, run_directory
from .interrupt import Interrupt
from .segment import Segment, advance, begin

UNFINISHED = (RESULTS.interrupted, RESULTS.out_of_time)


@on_own_mesh
def run(
    objective: Callable[[Any], Float[Array, ""]],
    model: PyTree,
    taus: ArrayLike | Sequence[float],
    *,
    directory: str | os.PathLike | None = None,
    time_limit: float | int | None = None,
    progress: bool | None = None,
    segment_steps: int = 32,
    checkpoint_every: float | int = 60.0,
    temperature: float | Array = 0.0,
    key: PRNGKeyArray | None = None,
    solver: diffrax.AbstractSolver | None = None,
    rtol: float | Array = 1e-4,
    atol: float | Array = 1e-6,
    controller: diffrax.AbstractStepSizeController | None = None,
    dt0: float | Array | None = None,
    steady: float | Array | None = None,
    max_steps: int | None = None,
    throw: bool = True,
) -> FlowSolution:
    r"""Solve as [`wgf.flow`][] does, bit for bit, in segments: with a progress line, clean stops and checkpoints.

    After each segment the run checks Ctrl-C, SIGTERM and the clock. When it stops, it returns the states reached so
    far. With a `directory` it also writes checkpoints, and each state as soon as its τ is reached. The same call then
    resumes the run, and ends with the same numbers as without a stop.

    **Arguments:**

    - `objective`, `model`, `taus`, `temperature`, `key`, `solver`, `rtol`, `atol`, `controller`, `dt0`, `steady`: as in
      [`wgf.flow`][].
    - `directory`: the folder of the run, with `problem.json`, `checkpoints/` (Orbax), `saves/INDEX.npz` (NumPy) and,
      once a call has ended, its solution in `solution.npz` for [`wgf.load`][]. `~` is the home folder. A directory
      holds one problem, and each call compares its own with that one: arrays, the code of your functions and classes,
      their closures, the globals that they use, and the releases of the packages involved. Code
      may move within its file; Python's version must stay the same. Files that your functions read are not compared.
    - `time_limit`: seconds, compilation included. The run stops at the end of the segment in which they pass.
    - `progress`: whether to show a line with τ, Q, dissipation, step, rejections and the time left. Default None: on a
      terminal and in a notebook.
    - `segment_steps`: the steps of a segment. Good values: 32; 4 to 8 if a velocity takes seconds.
    - `checkpoint_every`: seconds between checkpoints. One more is written at each stop.
    - `max_steps`: the most steps of the run, rounded up to the end of a segment; None for no bound.
    - `throw`: whether a failed solve raises. A run that was interrupted or out of time never raises.

    **Returns:** [`wgf.flows.FlowSolution`][]; rows that were not reached are NaN. Its `result` is
    `RESULTS.interrupted` or `RESULTS.out_of_time` after a stop. After a failure it names the cause, `not_finite`,
    `too_tight` or `stiff`, where that of `flow` is `stalled` or `dt_min`.

    **Raises:** `ValueError` as `flow` does; if a count or time is not positive; if the directory holds another problem,
    or the problem cannot be compared (a function that closes over a generator, say); if all checkpoints of the
    directory are damaged, naming the file; if another process uses the directory. `OSError` that names the file if the
    directory can no longer be written, as on a full disk: what is written stays, and the same call resumes.
    `RuntimeError` with τ, step, counts and cause if the solve fails and `throw=True`.

    Not for `jit`, `vmap` or `grad`; use `flow` there. Cost: that of `flow`, and one velocity per segment.
    """
    throw, progress = flag("throw", throw), progress if progress is None else flag("progress", progress)
    segment_steps = at_least("segment_steps", segment_steps, 1)
    max_steps = None if max_steps is None else at_least("max_steps", max_steps, 1)
    for name, value in (
        ("time_limit", np.inf if time_limit is None else time_limit),
        ("checkpoint_every", checkpoint_every),
    ):
        if numbers(name, value).shape != () or not value > 0:
            raise ValueError(f"`{name}` must be a positive number of seconds; got {shown(value)}.")
    deadline = None if time_limit is None else time.monotonic() + time_limit
    problem = initial_value_problem(
        objective,
        model,
        taus,
        temperature=temperature,
        key=key,
        solver=solver,
        rtol=rtol,
        atol=atol,
        controller=controller,
        dt0=dt0,
        steady=steady,
    )
    with contextlib.nullcontext() if directory is None else run_directory(directory, problem) as store:
        current = _Run(problem, store, checkpoint_every)
        with Interrupt() as interrupt, _Bar(problem.taus, progress) as bar:
            result = current.go(segment_steps, max_steps, deadline, interrupt, bar)
        solution = current.solution(result)
        if store is not None:
            store.keep(solution)
    if throw and current.has_failed(solution.result):
        raise RuntimeError(current.message(solution.result))
    return solution


class _Run:
    """A run in progress: its snapshot, and the states at the `taus` reached so far."""

    def __init__(self, problem: Problem, store: RunDirectory | None, checkpoint_every: float | int):
        self.problem, self.store = problem, store
        self.checkpoint_every, self.written = checkpoint_every, time.monotonic()
        snapshot, self.event = begin(problem)
        restored = None if store is None else store.restore(snapshot)
        self.snapshot, self.rows = (snapshot, {}) if restored is None else restored

    def go(
        self, segment_steps: int, max_steps: int | None, deadline: float | None, interrupt: Interrupt, bar: "_Bar"
    ) -> RESULTS:
        """Take one segment after another, until the last τ, a failure or a stop."""
        result = RESULTS.successful if self.snapshot.tau >= self.problem.taus[-1] else RESULTS.stalled
        while result == RESULTS.stalled:
            result = self._advance(segment_steps, bar)
            late = deadline is not None and time.monotonic() > deadline
            stop = _agreed(interrupt.asked, late)
            if result == RESULTS.stalled and any(stop):
                result = UNFINISHED[stop.index(True)]
            if result == RESULTS.stalled and max_steps is not None and self.snapshot.stats["num_steps"] >= max_steps:
                break
        if result != RESULTS.not_finite:
            self._checkpoint()
        return cause_of_failure(self.problem, self.snapshot, result)

    def _advance(self, segment_steps: int, bar: "_Bar") -> RESULTS:
        """Take one segment, and write a checkpoint if it is due."""
        segment = advance(self.problem, self.snapshot, self.event, segment_steps)
        self._keep(segment)
        bar.show(segment)
        # NaN is a failure whatever the step size controller says.
        if not segment.is_finite:
            return RESULTS.not_finite
        if time.monotonic() > self.written + self.checkpoint_every:
            self._checkpoint()
        return segment.result

    def _checkpoint(self) -> None:
        self.written = time.monotonic()
        if self.store is not None:
            self.store.checkpoint(self.snapshot)

    def _keep(self, segment: Segment) -> None:
        self.snapshot = segment.snapshot
        for index in np.flatnonzero(np.asarray(segment.reached)):
            row = on_host(jax.tree.map(lambda leaf, index=index: leaf[index], segment.rows))
            self.rows[int(index)] = row
            if self.store is not None:
                self.store.save(int(index), row)

    @staticmethod
    def has_failed(result: RESULTS) -> bool:
        """Whether the solve itself failed."""
        fine = (RESULTS.successful, RESULTS.event_occurred, *UNFINISHED)
        return not any(bool(result == code) for code in fine)

    def message(self, result: RESULTS) -> str:
        """Where and why the run failed."""
        tau, end, step = self.snapshot.tau, self.problem.taus[-1], self.snapshot.next_tau - self.snapshot.tau
        accepted, rejected = (self.snapshot.stats[f"num_{kind}_steps"] for kind in ("accepted", "rejected"))
        steps = f"after {accepted} steps and {rejected} rejected ones, the next of {step:.2g}"
        return f"At τ = {tau:.6g} of {end:.6g}, {steps}: {RESULTS[result]}"

    def solution(self, result: RESULTS) -> FlowSolution:
        """The solution so far. Rows not reached hold the steady state after a steady stop, else NaN."""
        state = on_host(self.snapshot.state)
        is_steady = bool(result == RESULTS.event_occurred)
        rest = state if is_steady else jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), state)
        rows = [self.rows.get(index, rest) for index in range(self.problem.taus.size)]
        reached = jnp.asarray([index in self.rows for index in range(len(rows))])
        states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
        return _collect(self.problem, states, reached, self.snapshot.stats, result)


@eqx.filter_jit
def _collect(problem: Problem, states: State, reached, stats, result: RESULTS) -> FlowSolution:
    return problem.collect(states, reached, stats, result)


def _agreed(*wishes: bool) -> list[bool]:
    """The first process decides for all: they must stop after the same segment."""
    if jax.process_count() == 1:
        return list(wishes)
    return [bool(wish) for wish in multihost_utils.broadcast_one_to_all(np.asarray(wishes))]


class _Bar:
    """The progress line."""

    def __init__(self, taus: Float[Array, " saves"], show: bool | None):
        self._first, self._last = float(taus[0]), float(taus[-1])
        self._show = show if jax.process_index() == 0 else False

    def __enter__(self) -> "_Bar":
        self._bar = bar(
            self._show,
            total=self._last - self._first,
            bar_format="{percentage:3.0f}% |{bar}| {desc} [{elapsed}<{remaining}]",
            dynamic_ncols=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, segment: Segment) -> None:
        """Update the line."""
        if self._bar.disable:
            return
        snapshot = segment.snapshot
        step = float(snapshot.next_tau - snapshot.tau)
        rejected = int(snapshot.stats["num_rejected_steps"])
        self._bar.set_description_str(
            f"τ {float(snapshot.tau):.4g}/{self._last:.4g}  Q {float(segment.objective):.6g}  "
            f"dissipation {float(segment.dissipation):.2e}  step {step:.2g}  rejected {rejected}",
            refresh=False,
        )
        self._bar.update(float(snapshot.tau) - self._first - self._bar.n)
