import signal
import threading

import pytest

from wgf._stop_signals import ended_by_signals

NUMBERS = (signal.SIGINT, signal.SIGTERM)


def handlers():
    return [signal.getsignal(number) for number in NUMBERS]


@pytest.fixture(autouse=True)
def _listening():
    """Ctrl-C is heard: a shell ignores it in programs that it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_handlers_come_back_in_the_end():
    before = handlers()
    with ended_by_signals("All is kept."):
        assert all(ours != theirs for ours, theirs in zip(handlers(), before, strict=True))
    assert handlers() == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ended_by_signals("All is kept."):
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_signals_alone():
    seen = []

    def look():
        with ended_by_signals("All is kept."):
            seen.extend(handlers())

    thread = threading.Thread(target=look)
    before = handlers()
    thread.start()
    thread.join()
    assert seen == before
