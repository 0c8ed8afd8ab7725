"""`run`: the same solve as `flow`, driven from the host in parts, that a person starts, watches and stops."""

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
from tqdm import tqdm

from ..._backend.compat import multihost_utils
from ..._backend.host import on_host
from ..._backend.mesh import on_own_mesh
from ..._checks import at_least, numbers, shown
from .._problem import Problem, initial_value_problem
from .._solution import RESULTS, FlowSolution
from .._state import State
from .cause import cause_of_failure
from .directory import RunDirectory
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
    chunk: int = 32,
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
    r"""Solve as [`wgf.flow`][] does, bit for bit, in parts of some steps: with a progress line, clean stops, a memory.

    Between two parts the run looks at Ctrl-C and at the clock, and where it stops keeps what is done. With a
    `directory` it writes each state as soon as its τ is reached, and checkpoints; the same call then goes on where the
    directory stands, to the same numbers as without a stop.

    **Arguments:**

    - `objective`, `model`, `taus`, `temperature`, `key`, `solver`, `rtol`, `atol`, `controller`, `dt0`, `steady`: as in
      [`wgf.flow`][].
    - `directory`: where the run is kept: `problem.json`, `checkpoints/` (Orbax), `saves/INDEX.npz` (NumPy). `~` is the
      home folder. A directory keeps one problem. Its parts are compared at each call: arrays, the code of your own
      functions and classes, what these close over and the globals that they use, the releases of the packages
      involved. The text may move; Python's own version must stay. What your functions read from files is not compared.
    - `time_limit`: seconds after which to stop, compilation included, to the next end of a part.
    - `progress`: whether to show a line with τ, Q, dissipation, step, rejections and the time left; None: where
      standard error is a terminal.
    - `chunk`: the steps of a part. Good values: 32; 4 to 8 where a velocity takes seconds.
    - `checkpoint_every`: seconds between checkpoints; one more is written at each stop.
    - `max_steps`: the most steps in all, to the next end of a part; None for no bound.
    - `throw`: whether a failed solve raises. An interrupted one, or one out of time, never does.

    **Returns:** [`wgf.flows.FlowSolution`][]; rows that were not reached are NaN. Its `result` tells
    `RESULTS.interrupted` and `RESULTS.out_of_time` from the end of the job, and of a failure the cause: `not_finite`,
    `too_tight`, `stiff`, where `flow` says `stalled` or `dt_min`.

    **Raises:** `ValueError` as `flow` does, if a count or time is not positive, or if the directory holds another
    problem or one that cannot be compared, such as a function over a generator; `ValueError` that names a damaged file
    of the directory, unless an earlier checkpoint makes up for it; `RuntimeError` with τ, step, counts and cause if the
    solve fails and `throw=True`.

    Not for `jit`, `vmap` or `grad`: that is what `flow` is for. Cost: that of `flow`, and one velocity a part.
    """
    chunk = at_least("chunk", chunk, 1)
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
    store = None if directory is None else RunDirectory(directory, problem)
    try:
        current = _Run(problem, store, checkpoint_every)
        with Interrupt() as interrupt, _Bar(problem.taus, progress) as bar:
            result = current.go(chunk, max_steps, deadline, interrupt, bar)
    finally:
        if store is not None:
            store.close()
    solution = current.solution(result)
    if throw and current.has_failed(solution.result):
        raise RuntimeError(current.message(solution.result))
    return solution


class _Run:
    """A run on its way: the snapshot, and the states seen at `taus`."""

    def __init__(self, problem: Problem, store: RunDirectory | None, checkpoint_every: float | int):
        self.problem, self.store = problem, store
        self.checkpoint_every, self.written = checkpoint_every, time.monotonic()
        snapshot, self.event = begin(problem)
        restored = None if store is None else store.restore(snapshot)
        self.snapshot, self.rows = (snapshot, {}) if restored is None else restored

    def go(
        self, chunk: int, max_steps: int | None, deadline: float | None, interrupt: Interrupt, bar: "_Bar"
    ) -> RESULTS:
        """Take one part after another, until the last τ, a failure or a stop."""
        result = RESULTS.successful if self.snapshot.tau >= self.problem.taus[-1] else RESULTS.stalled
        while result == RESULTS.stalled:
            result = self._advance(chunk, bar)
            late = deadline is not None and time.monotonic() > deadline
            stop = _agreed(interrupt.asked, late)
            if result == RESULTS.stalled and any(stop):
                result = UNFINISHED[stop.index(True)]
            if result == RESULTS.stalled and max_steps is not None and self.snapshot.stats["num_steps"] >= max_steps:
                break
        if result != RESULTS.not_finite:
            self._checkpoint()
        return cause_of_failure(self.problem, self.snapshot, result)

    def _advance(self, chunk: int, bar: "_Bar") -> RESULTS:
        """Take one part, and write a checkpoint if it is time."""
        part = advance(self.problem, self.snapshot, self.event, chunk)
        self._keep(part)
        bar.show(part)
        # Numbers that are no longer finite are a failure at any step size control.
        if not part.is_finite:
            return RESULTS.not_finite
        if time.monotonic() > self.written + self.checkpoint_every:
            self._checkpoint()
        return part.result

    def _checkpoint(self) -> None:
        self.written = time.monotonic()
        if self.store is not None:
            self.store.checkpoint(self.snapshot)

    def _keep(self, part: Segment) -> None:
        self.snapshot = part.snapshot
        for index in np.flatnonzero(np.asarray(part.reached)):
            row = on_host(jax.tree.map(lambda leaf, index=index: leaf[index], part.rows))
            self.rows[int(index)] = row
            if self.store is not None:
                self.store.save(int(index), row)

    @staticmethod
    def has_failed(result: RESULTS) -> bool:
        """Whether the solve itself came to nothing."""
        fine = (RESULTS.successful, RESULTS.event_occurred, *UNFINISHED)
        return not any(bool(result == code) for code in fine)

    def message(self, result: RESULTS) -> str:
        """Where and why a run failed."""
        tau, end, step = self.snapshot.tau, self.problem.taus[-1], self.snapshot.next_tau - self.snapshot.tau
        accepted, rejected = (self.snapshot.stats[f"num_{kind}_steps"] for kind in ("accepted", "rejected"))
        steps = f"after {accepted} steps and {rejected} rejected ones, the next of {step:.2g}"
        return f"At τ = {tau:.6g} of {end:.6g}, {steps}: {RESULTS[result]}"

    def solution(self, result: RESULTS) -> FlowSolution:
        """The solution as far as the run came: a steady state fills the rows after it, NaN the others."""
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
    """What the first of many processes wishes: all must stop at the same part."""
    if jax.process_count() == 1:
        return list(wishes)
    return [bool(wish) for wish in multihost_utils.broadcast_one_to_all(np.asarray(wishes))]


class _Bar:
    """The progress line."""

    def __init__(self, taus: Float[Array, " saves"], show: bool | None):
        self._first, self._last = float(taus[0]), float(taus[-1])
        self._show = show if jax.process_index() == 0 else False

    def __enter__(self) -> "_Bar":
        self._bar = tqdm(
            total=self._last - self._first,
            disable=None if self._show is None else not self._show,
            bar_format="{percentage:3.0f}% |{bar}| {desc} [{elapsed}<{remaining}]",
            dynamic_ncols=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, part: Segment) -> None:
        """Tell where the run stands."""
        if self._bar.disable:
            return
        snapshot = part.snapshot
        step = float(snapshot.next_tau - snapshot.tau)
        rejected = int(snapshot.stats["num_rejected_steps"])
        self._bar.set_description_str(
            f"τ {float(snapshot.tau):.4g}/{self._last:.4g}  Q {float(part.objective):.6g}  "
            f"dissipation {float(part.dissipation):.2e}  step {step:.2g}  rejected {rejected}",
            refresh=False,
        )
        self._bar.update(float(snapshot.tau) - self._first - self._bar.n)
