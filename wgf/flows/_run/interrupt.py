"""Ctrl-C as a request that a loop reads between two segments of its work."""

import signal
import threading
from types import FrameType


class Interrupt:
    """Within a `with` block, record the first Ctrl-C in `asked`. A second one raises `KeyboardInterrupt`, as usual.

    Python delivers signals to the main thread only. In other threads this does nothing.
    """

    def __init__(self):
        self.asked = False
        self._before = None

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
