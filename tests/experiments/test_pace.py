import pytest

from wgf.experiments import _pace
from wgf.experiments._pace import Pace, duration, remaining


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand, in seconds."""
    now = [0.0]
    monkeypatch.setattr(_pace.time, "monotonic", lambda: now[0])
    return now


def test_the_rest_takes_as_long_as_what_is_done_at_the_same_speed(clock):
    pace = Pace(4)
    clock[0] = 60.0
    pace.advance(100)
    pace.finish(was_read=False)
    assert pace.line() == "1 of 4 parts done in 60 s, about 3 min left"
    clock[0] = 90.0
    # Half of the second part: 1.5 parts in 90 s, 2.5 are left.
    pace.advance(50)
    assert pace.line("start", ["flow", "noise"]) == (
        "1 of 4 parts done in 90 s, about 2 min left; done: start; running: flow + noise"
    )
    assert pace.line(running=["flow"]).endswith(" left; running: flow")


def test_parts_that_were_read_do_not_count_for_the_speed(clock):
    pace = Pace(4)
    pace.advance(100)
    pace.finish(was_read=True)
    assert pace.line() == "1 of 4 parts done in 0 s"
    clock[0] = 40.0
    pace.advance(100)
    pace.finish(was_read=False)
    assert pace.line() == "2 of 4 parts done in 40 s, about 80 s left"


def test_at_the_end_nothing_is_left(clock):
    pace = Pace(1)
    clock[0] = 7.0
    pace.advance(100)
    pace.finish(was_read=False)
    assert pace.line() == "1 of 1 parts done in 7 s"


def test_without_computed_work_there_is_no_estimate():
    assert remaining(10.0, 400, 0, 0) is None
    assert remaining(10.0, 400, 200, 200) is None
    assert remaining(10.0, 400, 300, 200) == 10.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (99.4, "99 s"),
        (99.6, "2 min"),
        (3600.0, "60 min"),
        (5970.0, "1 h 40 min"),
        (90000.0, "25 h 0 min"),
    ],
)
def test_a_duration_in_words(seconds, text):
    assert duration(seconds) == text
