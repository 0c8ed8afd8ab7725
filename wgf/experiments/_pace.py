"""How far a job of several parts is, and how long the rest takes."""

import time
from collections.abc import Iterable


class Pace:
    """Counts the work of a job in hundredths of its parts, and measures its mean speed.

    Parts that are read from disk take no time, so they do not count for the speed.

    **Arguments:** `parts`: the number of parts.
    """

    def __init__(self, parts: int):
        self.parts = parts
        self.finished = 0
        self._done = self._read = 0
        self._began = time.monotonic()

    def advance(self, hundredths: int) -> None:
        """Count work that is done."""
        self._done += hundredths

    def finish(self, was_read: bool) -> None:
        """Count a part that has ended, and whose work is counted."""
        self.finished += 1
        self._read += 100 * was_read

    def line(self, last: str | None = None, running: Iterable[str] = ()) -> str:
        """The state in words: `2 of 5 parts done in 3 min, about 5 min left; done: flow; running: noise`.

        **Arguments:** the part that has just ended, if there is one; the parts that run.
        """
        elapsed = time.monotonic() - self._began
        left = remaining(elapsed, 100 * self.parts, self._done, self._read)
        estimate = f", about {duration(left)} left" if left and round(left) else ""
        ended, now = "" if last is None else f"; done: {last}", " + ".join(running)
        now = f"; running: {now}" if now else ""
        return f"{self.finished} of {self.parts} parts done in {duration(elapsed)}{estimate}{ended}{now}"


def remaining(elapsed: float, total: int, done: int, read: int) -> float | None:
    """The seconds that the rest takes at the mean speed so far; None if nothing has been computed yet."""
    return elapsed * (total - done) / (done - read) if done > read else None


def duration(seconds: float) -> str:
    """A time in words, as in `45 s`, `12 min` and `2 h 5 min`."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
