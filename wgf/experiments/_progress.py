"""One progress bar for a job of several stages."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import diffrax
import equinox as eqx
import jax
from tqdm import tqdm


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


class Progress:
    """A bar on the terminal that counts stages, and within a stage the solve's own progress.

    **Arguments:**

    - `stages`: how many there will be.
    - `show`: False for no bar; None for a bar where standard error is a terminal.
    """

    def __init__(self, stages: int, show: bool | None = None):
        self._bar = tqdm(
            total=100 * stages,
            disable=None if show is None else not show,
            bar_format="{percentage:3.0f}% |{bar}| {elapsed} {desc}",
            leave=False,
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[diffrax.AbstractProgressMeter]:
        """Run a stage; give the meter to its solve."""
        if self._bar.disable:
            # No calls to the host from inside a solve that nobody watches.
            yield diffrax.NoProgressMeter()
            return
        start = self._bar.n
        self._bar.set_description_str(name)

        def report(done) -> None:
            # The last reports of a compiled solve may arrive late and out of order: never move back.
            self._bar.update(max(0, start + int(99 * float(done)) - self._bar.n))

        yield Meter(report)
        jax.effects_barrier()
        self._bar.update(start + 100 - self._bar.n)

    def close(self) -> None:
        """Clear the bar."""
        self._bar.close()
