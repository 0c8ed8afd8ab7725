"""Ctrl-C and SIGTERM as requests that a loop reads between two segments of its work."""

import signal
import threading
from types import FrameType

# A cluster's scheduler sends SIGTERM some time before it ends a job.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Within a `with` block, record the first Ctrl-C or SIGTERM in `asked`. A second one acts as usual.

    Python delivers signals to the main thread only. In other threads this does nothing.
    """

    def __init__(self):
        self.asked = False
        self._before = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
