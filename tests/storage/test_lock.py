import contextlib
import subprocess
import sys

import pytest

from wgf._storage import lock
from wgf._storage.lock import locked

pytestmark = pytest.mark.skipif(lock.fcntl is None, reason="this system has no fcntl, and folders are not locked")

HOLD = f"""
import os, runpy, sys
from pathlib import Path
locked = runpy.run_path({lock.__file__!r})["locked"]
with locked(Path(sys.argv[1])):
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock until it is killed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == str(process.pid)
    yield process
    process.kill()
    process.communicate()


def test_a_folder_that_another_process_uses_is_refused_by_its_number(holder, tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} is in use by process {holder.pid}"):
        locked(tmp_path).__enter__()


def test_a_killed_process_holds_no_lock(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == [tmp_path / ".lock"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path), pytest.raises(ValueError, match="is in use by process"):
        locked(tmp_path).__enter__()


def test_an_owner_that_has_not_yet_written_its_number_is_another_process(tmp_path):
    with locked(tmp_path):
        (tmp_path / ".lock").write_bytes(b"")
        with pytest.raises(ValueError, match="is in use by another process"):
            locked(tmp_path).__enter__()


def test_a_lock_on_a_removed_file_is_taken_anew(monkeypatch, tmp_path):
    """The process before removes its file between `open` and `flock`."""
    lock_file, calls = lock._lock, []

    def remove_once(file, folder):
        lock_file(file, folder)
        calls.append(file)
        if len(calls) == 1:
            (tmp_path / ".lock").unlink()

    monkeypatch.setattr(lock, "_lock", remove_once)
    with (
        locked(tmp_path),
        (tmp_path / ".lock").open("a+b") as file,
        pytest.raises(ValueError, match="is in use by process"),
    ):
        lock_file(file, tmp_path)
    assert len(calls) == 2
    assert calls[0].closed


@pytest.mark.parametrize("fault", [None, OSError("no locks here")])
def test_without_locks_of_the_system_a_folder_is_not_locked(fault, monkeypatch, tmp_path):
    class Without:
        LOCK_EX, LOCK_NB = 2, 4

        @staticmethod
        def flock(*_):
            raise fault

    monkeypatch.setattr(lock, "fcntl", None if fault is None else Without)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(tmp_path))
        stack.enter_context(locked(tmp_path))
    assert list(tmp_path.iterdir()) == []
