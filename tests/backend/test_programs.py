from functools import partial
from itertools import count

import jax
import jax.numpy as jnp
import pytest

import wgf
from wgf._backend import programs


@pytest.fixture
def system(monkeypatch, tmp_path):
    """A system that allows 3,000 memory maps: how many are taken, and a record of when programs are dropped."""
    taken, dropped = [0], []
    for name, text in (("_MAPS", ""), ("_MOST_MAPS", "3000\n")):
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        monkeypatch.setattr(programs, name, file)
    monkeypatch.setattr(programs, "_count", lambda: taken[0])
    monkeypatch.setattr(jax, "clear_caches", lambda: dropped.append(taken[0]))
    # Each call comes five seconds after the one before.
    monkeypatch.setattr(programs.time, "monotonic", partial(next, count(0, programs._SECONDS_BETWEEN_LOOKS)))
    return taken, dropped


def looks(room, times):
    for _ in range(times):
        room.make()


def test_programs_are_dropped_before_a_process_is_full(system, monkeypatch):
    taken, dropped = system
    room = programs.Room()
    taken[0] = 1_999
    looks(room, 3)
    assert dropped == []

    monkeypatch.setattr(jax, "clear_caches", lambda: (dropped.append(taken[0]), taken.__setitem__(0, 500)))
    for _ in range(2):
        taken[0] = 2_000
        with pytest.warns(UserWarning, match="held 2,000 of the 3,000 memory maps .*wgf has dropped the programs"):
            looks(room, 2)
    assert dropped == [2_000, 2_000]


def test_programs_are_not_dropped_again_where_that_does_not_help(system):
    taken, dropped = system
    taken[0] = 2_500
    with pytest.warns(UserWarning, match="memory maps") as told:
        looks(programs.Room(), 4)
    assert (len(told), dropped) == (1, [2_500])


def test_other_systems_have_no_limit(system, tmp_path):
    taken, dropped = system
    taken[0] = 2_500
    (tmp_path / "_MOST_MAPS").unlink()
    looks(programs.Room(), 2)
    assert dropped == []


def test_every_flow_looks(monkeypatch):
    calls = []
    monkeypatch.setattr(programs.Room, "make", lambda self: calls.append(self))
    wgf.flow(lambda x: jnp.sum(x**2), jnp.ones(2), [0.0, 0.1])
    assert calls == [programs.ROOM]


@pytest.mark.skipif(not programs._MAPS.exists(), reason="this system does not tell how many memory maps a process has")
def test_memory_maps_are_counted():
    assert 100 < programs._count() < 65_530
