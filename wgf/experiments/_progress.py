"""One progress bar for a job of several stages."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from tqdm import tqdm

_Result = TypeVar("_Result")
_TICK = 1.0
"""Seconds between two drawings of a bar whose stages report nothing, so that its clock is seen to run."""


class Meter(diffrax.AbstractProgressMeter):
    """A Diffrax progress meter that reports each step's share done to a function on the host."""

    report: Callable[[float], None] = eqx.field(static=True)

    def init(self) -> None:
        """There is nothing to begin: the stage owns the bar."""

    def step(self, state: None, progress) -> None:
        """Report from inside the compiled solve."""
        jax.debug.callback(self.report, progress)

    def close(self, state: None) -> None:
        """There is nothing to end: the stage owns the bar."""


class Progress(AbstractContextManager):
    """A bar on the terminal that counts stages, and within each stage the solve's own progress.

    Stages may run side by side, each in a thread of its own.

    **Arguments:**

    - `stages`: how many there will be.
    - `show`: False for no bar; None for a bar where standard error is a terminal.

    As a context manager it clears the bar at the end, also after an error.
    """

    def __init__(self, stages: int, show: bool | None = None):
        self._lock = threading.Lock()
        self._shares: dict[str, int] = {}
        self._bar = tqdm(
            total=100 * stages,
            disable=None if show is None else not show,
            bar_format="{percentage:3.0f}% |{bar}| {elapsed} {desc}",
            leave=False,
        )
        self._closed = threading.Event()
        if not self._bar.disable:
            threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        while not self._closed.wait(_TICK):
            with self._lock:
                if not self._closed.is_set():
                    self._bar.refresh()

    @contextmanager
    def stage(self, name: str) -> Iterator[diffrax.AbstractProgressMeter]:
        """Run a stage; give the meter to its solve."""
        if self._bar.disable:
            # No calls to the host from inside a solve that nobody watches.
            yield diffrax.NoProgressMeter()
            return
        with self._lock:
            self._shares[name] = 0
            self._bar.set_description_str(" + ".join(self._shares))
        yield Meter(lambda done: self._move(name, int(99 * float(done))))
        self._move(name, 100)
        with self._lock:
            del self._shares[name]

    def _move(self, name: str, share: int) -> None:
        """Move on to a share of a stage, never back: a compiled solve's reports may arrive late and out of order."""
        with self._lock:
            done = self._shares.get(name, 100)
            if share > done:
                self._shares[name] = share
                self._bar.update(share - done)

    def close(self) -> None:
        """Clear the bar."""
        with self._lock:
            self._closed.set()
            self._bar.close()

    def __exit__(self, *_: object) -> None:
        self.close()


class Stages(AbstractContextManager):
    """Stages of a job that run side by side, under one bar.

    **Arguments:**

    - `stages`, `show`: as for `Progress`.
    - `at_once`: how many run at once, each in a thread of its own.
    """

    def __init__(self, stages: int, show: bool | None, *, at_once: int):
        self._progress = Progress(stages, show)
        self._pool = ThreadPoolExecutor(at_once)

    def start(self, name: str, function: Callable[..., _Result], *args: Any) -> Future[_Result]:
        """Compute `function(meter, *args)` as soon as a thread is free."""
        # JAX keeps such contexts for each thread by itself.
        double = jnp.result_type(float) == jnp.float64

        def stage() -> _Result:
            with jax.enable_x64(double), self._progress.stage(name) as meter:
                return jax.block_until_ready(function(meter, *args))

        return self._pool.submit(stage)

    def __exit__(self, *_: object) -> None:
        """Leave out what has not begun, if there was an error."""
        self._pool.shutdown(cancel_futures=True)
        self._progress.close()
