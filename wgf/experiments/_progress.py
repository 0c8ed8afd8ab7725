"""A progress bar for a job of several tasks, and threads that run the tasks."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

from .._bars import bar
from ._lines import lines_of_the_command
from ._pace import Pace
from ._parts import Parts

_Result = TypeVar("_Result")
_TICK = 1.0
"""Seconds between two drawings of a bar whose tasks report nothing, so that its clock moves."""
_SILENCE = 60.0
"""Seconds without a line after which one is written."""


class Meter(diffrax.AbstractProgressMeter):
    """A Diffrax progress meter that reports the start and the completed share of each solve to host functions."""

    begin: Callable[[], None] = eqx.field(static=True)
    report: Callable[[float], None] = eqx.field(static=True)

    def init(self) -> None:
        """Report the start, from inside the compiled solve."""
        jax.debug.callback(self.begin)

    def step(self, state: None, progress) -> None:
        """Report from inside the compiled solve."""
        jax.debug.callback(self.report, progress)

    def close(self, state: None) -> None:
        """Do nothing: the task owns the bar."""


class Progress(AbstractContextManager):
    """A progress bar that counts tasks, and shows the progress of the solves inside each task.

    A task runs in the calling thread (`task`, `run`) or in a thread of the bar's own pool (`start`). The bar estimates
    the time that is left from the mean speed so far.

    A command of `wgf` also writes a line after each task, and at least one per minute: to its log file, and to standard
    error if that is no terminal.

    **Arguments:**

    - `tasks`: the number of tasks.
    - `show`: False for no bar, and no lines on standard error; None for a bar on a terminal and in a notebook.
    - `at_once`: the number of threads of the pool.
    - `parts`: where the results of `run` and `start` are kept, by the names of the tasks. What is there is read instead
      of computed.

    As a context manager it waits for the running tasks, drops the tasks that have not begun, and clears the bar. It
    does so after an error too.
    """

    def __init__(self, tasks: int, show: bool | None = None, *, at_once: int = 1, parts: Parts | None = None):
        self._parts = parts
        self._lock = threading.Lock()
        self._shares: dict[str, int] = {}
        self._read: set[str] = set()
        self._bar = bar(
            show,
            total=100 * tasks,
            bar_format="{percentage:3.0f}% |{bar}| {elapsed}<{remaining} {desc}",
            smoothing=0,
            leave=False,
        )
        self._pace = Pace(tasks)
        self._write = _writer(on_standard_error=show is None and self._bar.disable)
        self._wrote = time.monotonic()
        self._pool = ThreadPoolExecutor(at_once)
        self._closed = threading.Event()
        if not self._bar.disable or self._write is not None:
            threading.Thread(target=self._tick, daemon=True).start()

    @contextmanager
    def task(self, name: str, *, solves: int = 1) -> Iterator[diffrax.AbstractProgressMeter]:
        """Run a task in the calling thread, and yield the meter for its solves, one after another."""
        with self._lock:
            self._shares[name] = 0
            self._bar.set_description_str(" + ".join(self._shares))
        # Without a bar, the solve makes no calls to the host.
        yield diffrax.NoProgressMeter() if self._bar.disable else self._meter(name, solves)
        self._end(name)

    def _meter(self, name: str, solves: int) -> diffrax.AbstractProgressMeter:
        """The meter for the solves of a task, one after another."""
        ended = -1

        def begin() -> None:
            nonlocal ended
            ended += 1

        def report(done: float) -> None:
            self._advance(name, int(99 * (max(ended, 0) + float(done)) / solves))

        return Meter(begin, report)  # pyright: ignore[reportCallIssue]

    def run(
        self, name: str, function: Callable[..., _Result], *args: Any, solves: int = 1, is_temporary: bool = False
    ) -> _Result:
        """Run `function(meter, *args)` as a task in the calling thread.

        **Arguments:** `is_temporary`: whether the kept result is removed once the whole run is saved.
        """
        with self.task(name, solves=solves) as meter:
            self._read.add(name)

            def compute() -> _Result:
                self._read.discard(name)
                return jax.block_until_ready(function(meter, *args))

            return compute() if self._parts is None else self._parts.part(name, compute, is_temporary=is_temporary)

    def start(self, name: str, function: Callable[..., _Result], *args: Any, solves: int = 1) -> Future[_Result]:
        """Run `function(meter, *args)` as a task in a thread of the pool, with the caller's JAX settings."""
        enter_settings = _settings_of_this_thread()

        def run() -> _Result:
            with enter_settings():
                return self.run(name, function, *args, solves=solves)

        return self._pool.submit(run)

    def close(self) -> None:
        """Wait for the running tasks, drop the tasks that have not begun, and clear the bar."""
        self._pool.shutdown(cancel_futures=True)
        with self._lock:
            self._closed.set()
            self._bar.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _advance(self, name: str, share: int) -> None:
        """Advance a task to a share, never back: reports of a compiled solve may arrive late and out of order."""
        with self._lock:
            done = self._shares.get(name, 100)
            if share > done:
                self._shares[name] = share
                self._pace.advance(share - done)
                self._bar.update(share - done)

    def _end(self, name: str) -> None:
        """Count a task as done."""
        was_read = name in self._read
        if was_read and not self._bar.disable:
            # What the bar leaves out of the speed, from which it estimates the time left.
            self._bar.initial += 100
        self._advance(name, 100)
        with self._lock:
            del self._shares[name]
            self._read.discard(name)
            self._pace.finish(was_read)
            self._write_line(name)

    def _write_line(self, last: str | None = None) -> None:
        self._wrote = time.monotonic()
        if self._write is not None:
            self._write(self._pace.line(last, self._shares))

    def _tick(self) -> None:
        while not self._closed.wait(_TICK):
            with self._lock:
                if not self._closed.is_set():
                    self._bar.refresh()
                    if time.monotonic() - self._wrote >= _SILENCE:
                        self._write_line()


def _writer(on_standard_error: bool) -> Callable[[str], None] | None:
    """What writes the lines of progress of a command; None in a program of one's own, which gets none."""
    lines = lines_of_the_command()
    if lines is None:
        return None
    return lines.tell if on_standard_error else lines.note


def _settings_of_this_thread() -> Callable[[], ExitStack]:
    """A function that enters this thread's JAX settings in another thread: JAX keeps them per thread."""
    config: Any = jax.config
    double = jnp.result_type(float) == jnp.float64
    device, precision = config.jax_default_device, config.jax_default_matmul_precision
    mesh = jax.sharding.get_mesh()

    def enter() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(jax.enable_x64(double))
        stack.enter_context(jax.default_device(device))
        stack.enter_context(jax.default_matmul_precision(precision))
        if not mesh.empty:
            stack.enter_context(jax.set_mesh(mesh))
        return stack

    return enter
