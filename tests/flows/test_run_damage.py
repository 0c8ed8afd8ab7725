"""The directory of a run when its files are damaged, its disk is full, or another process uses it."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import wgf
from wgf.flows._run import directory as directory_module, problem_file

TAUS = np.linspace(0.0, 1.0, 21)
OPTIONS = {"segment_steps": 2, "progress": False}


class Point(eqx.Module):
    """All that moves."""

    x: jnp.ndarray


def bowl(point):
    """Anisotropic and not quadratic, so that steps differ."""
    return jnp.sum(jnp.array([0.3, 1.0, 4.0]) * point.x**2) / 2 + jnp.sum(point.x**4)


def solve(directory, **options):
    return wgf.run(bowl, Point(jnp.array([1.0, -1.5, 0.7])), TAUS, directory=directory, **OPTIONS, **options)


def assert_same(ours, theirs):
    """Every array of two solutions, bit for bit."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run stopped twice: its directory with two checkpoints."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    for _ in range(2):
        solve(folder, time_limit=1e-9)
    assert len(list((folder / "checkpoints").iterdir())) == 2
    return folder


@pytest.fixture
def folder(stopped, tmp_path):
    """A copy of that directory."""
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return solve(tmp_path_factory.mktemp("whole"))


def newest(folder):
    return max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))


def oldest(folder):
    return min((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


FILES = {
    "problem.json": lambda run: run / "problem.json",
    "digests.json": lambda run: run / "digests.json",
    "an early save": lambda run: run / "saves" / "0001.npz",
    "a late save": lambda run: max((run / "saves").iterdir()),
    "the data of the newest checkpoint": lambda run: largest(newest(run)),
    "the metadata of the newest checkpoint": lambda run: newest(run) / "_CHECKPOINT_METADATA",
    "the data of the older checkpoint": lambda run: largest(oldest(run)),
}


def cut(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def flip(share):
    def damage(path):
        content = bytearray(path.read_bytes())
        content[int(share * len(content))] ^= 0x10
        path.write_bytes(bytes(content))

    return damage


def to_folder(path):
    path.unlink()
    path.mkdir()


HOWS = {
    "missing": lambda path: path.unlink(),
    "empty": cut(0),
    "cut at a third": cut(1 / 3),
    "cut at its end": cut(0.999),
    "one bit at a quarter": flip(0.25),
    "one bit in the middle": flip(0.5),
    "one bit at nine tenths": flip(0.9),
    "text": lambda path: path.write_bytes(b"text"),
    "a folder": to_folder,
}


def zeros(run):
    path = run / "saves" / "0001.npz"
    arrays = dict(np.load(path))
    np.savez(path, **{name: array if name == "tau" else np.zeros_like(array) for name, array in arrays.items()})


def swap(first, second, between):
    first.rename(between)
    second.rename(first)
    between.rename(second)


def swap_saves(run):
    """Each with the other's τ, so that only the states differ."""
    paths = [run / "saves" / f"{index:04d}.npz" for index in (1, 2)]
    one, two = (dict(np.load(path)) for path in paths)
    for path, own, other in ((paths[0], one, two), (paths[1], two, one)):
        np.savez(path, **{**other, "tau": own["tau"]})


def drop_digest(run):
    path = run / "digests.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    del found["digests"]["saves/0001.npz"]
    path.write_text(json.dumps(found), encoding="utf-8")


WHOLE = {
    "a save of zeros": zeros,
    "two saves swapped": swap_saves,
    "two files of saves swapped": lambda run: swap(run / "saves/0001.npz", run / "saves/0002.npz", run / "x"),
    "two checkpoints swapped": lambda run: swap(newest(run), oldest(run), run / "x"),
    "no saves": lambda run: shutil.rmtree(run / "saves"),
    "no newest checkpoint": lambda run: shutil.rmtree(newest(run)),
    "no older checkpoint": lambda run: shutil.rmtree(oldest(run)),
    "an empty newest checkpoint": lambda run: (shutil.rmtree(path := newest(run)), path.mkdir()),
    "no checkpoints": lambda run: shutil.rmtree(run / "checkpoints"),
    "a digest less": drop_digest,
}
DAMAGES = {
    f"{file}: {how}": lambda run, find=find, damage=damage: damage(find(run))
    for file, find in FILES.items()
    for how, damage in HOWS.items()
} | WHOLE


def outcome(folder):
    """What the same call ends in: a solution or an error."""
    try:
        return solve(folder)
    # A folder in the place of a file cannot be written.
    except (ValueError, IsADirectoryError) as error:
        return error


@pytest.mark.heavy
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_ends_with_the_same_numbers_or_names_the_file(name, folder, whole):
    DAMAGES[name](folder)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found = outcome(folder)
    unchecked = f"{folder}/digests.json is missing, so that the files of the run cannot be checked"
    assert any(unchecked in str(warning.message) for warning in heard) == (name == "digests.json: missing")
    for text in (str(warning.message) for warning in heard if unchecked not in str(warning.message)):
        assert re.search(rf"{folder}/(checkpoints|saves)/\S+ is missing, .* from the checkpoint after \d+ steps", text)
    if isinstance(found, Exception):
        assert re.search(f"`directory` must .*{folder}", str(found))
        assert re.search("[Rr]estore|[Pp]ass|the same call resumes", str(found))
    else:
        assert_same(found, whole)


def test_a_damaged_checkpoint_is_told_once_and_in_plain_words(folder, whole, caplog):
    (newest(folder) / "_CHECKPOINT_METADATA").write_bytes(b"")
    largest(newest(folder)).write_bytes(b"")
    with pytest.warns(
        UserWarning, match=r"checkpoints/\d+ is missing, truncated or has other contents. The run resumes"
    ):
        assert_same(solve(folder), whole)
    assert caplog.records == []


@pytest.mark.parametrize("text", [b"", b'{"parts": {"taus": "flo'])
def test_a_description_cut_off_before_anything_was_kept_is_written_anew(text, tmp_path, whole):
    (tmp_path / "problem.json").write_bytes(text)
    assert_same(solve(tmp_path), whole)


def test_damaged_digests_can_be_deleted(folder, whole):
    """The next stop writes new ones, of the files as they are."""
    damage = cut(0.5)
    damage(folder / "digests.json")
    with pytest.raises(ValueError, match=r"run/digests.json is missing, truncated .* Restore the file .* or delete it"):
        solve(folder)
    (folder / "digests.json").unlink()
    with pytest.warns(UserWarning, match="digests.json is missing, so that the files of the run cannot be checked"):
        solve(folder, time_limit=1e-9)
    assert_same(solve(folder), whole)
    zeros(folder)
    with pytest.raises(ValueError, match=r"saves/0001.npz is missing, truncated or has other contents"):
        solve(folder)


def test_parts_of_files_that_a_killed_process_left_are_removed(folder, whole):
    for path in (folder / ".digests.json.1.part", folder / "saves" / ".0003.npz.1.part"):
        path.write_bytes(b"PK")
    assert_same(solve(folder), whole)
    assert list(folder.rglob("*.part")) == []


class FullDisk:
    """A disk that is full from the k-th file on."""

    def __init__(self, monkeypatch, module, name, first):
        self.written, self.first, self.write = 0, first, getattr(module, name)
        monkeypatch.setattr(module, name, self)

    def __call__(self, *args, **kwargs):
        self.written += 1
        if self.written >= self.first:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.write(*args, **kwargs)


# Saves, digests and checkpoints of a run of about ten segments.
WRITERS = {"written_whole": (1, 2, 7, 21), "write_digests": (1, 3), "digest_of": (5,)}


@pytest.mark.heavy
@pytest.mark.parametrize(("writer", "first"), [(name, first) for name, firsts in WRITERS.items() for first in firsts])
def test_a_full_disk_keeps_what_is_done(writer, first, tmp_path, whole, monkeypatch):
    with monkeypatch.context() as patch:
        FullDisk(patch, directory_module, writer, first)
        with pytest.raises(OSError, match=r"`directory` must stay a folder that can be written; \S+/run/\S+ could not"):
            solve(tmp_path / "run", checkpoint_every=1e-9)
    assert_same(solve(tmp_path / "run"), whole)


def test_a_full_disk_at_the_start(tmp_path, whole, monkeypatch):
    with monkeypatch.context() as patch:
        FullDisk(patch, problem_file, "written_whole", 1)
        with pytest.raises(ValueError, match=r"can be made and written; got \S+/run \(\[Errno 28\] No space left"):
            solve(tmp_path / "run")
    assert_same(solve(tmp_path / "run"), whole)


class BrokenManager:
    """Orbax's manager on a disk that is full from the k-th checkpoint on: at the call, or in the background."""

    def __init__(self, manager, first, where):
        self._manager, self._left, self._where = manager, first - 1, where

    def __getattr__(self, name):
        if name == self._where:
            self._left -= 1
            if self._left < 0:
                raise RuntimeError("write failed: No space left on device")
        return getattr(self._manager, name)


@pytest.mark.parametrize(("first", "where"), [(1, "save"), (2, "save"), (1, "wait_until_finished")])
def test_a_checkpoint_that_cannot_be_written(first, where, tmp_path, whole, monkeypatch):
    begin = directory_module.RunDirectory.__init__

    def broken(self, *args):
        begin(self, *args)
        self._manager = BrokenManager(self._manager, first, where)

    with monkeypatch.context() as patch:
        patch.setattr(directory_module.RunDirectory, "__init__", broken)
        with pytest.raises(
            OSError, match=r"run/checkpoints\S* could not be written \(write failed: No space left"
        ) as error:
            solve(tmp_path / "run", checkpoint_every=1e-9)
    assert error.value.errno == errno.EIO
    assert_same(solve(tmp_path / "run"), whole)


def test_a_save_that_cannot_be_read_any_more(folder, whole, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(directory_module.np, "load", fail)
        with pytest.raises(ValueError, match=r"saves/0000.npz is missing, truncated or has other contents. Restore"):
            solve(folder)
    assert_same(solve(folder), whole)


HOLD = """
import sys, time
from pathlib import Path
from wgf._storage.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_process_writes_a_directory_at_a_time(folder, whole):
    """The system frees the directory of a process that is killed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(wgf.__file__).parents[1])}
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(
            ValueError, match=f"`directory` must be a folder that no other .* in use by process {owner.pid}"
        ):
            solve(folder)
        owner.send_signal(signal.SIGKILL)
    assert_same(solve(folder), whole)


def test_unchecked_files_must_still_fit(folder):
    """Without digests, a state of another shape or of another time is still refused."""
    (folder / "digests.json").unlink()
    path = folder / "saves" / "0000.npz"
    right = dict(np.load(path))
    for name, value in (("tau", 7.0), ("dissipated", np.zeros(2))):
        np.savez(path, **{**right, name: value})
        with (
            pytest.warns(UserWarning, match="digests.json is missing"),
            pytest.raises(ValueError, match=r"0000.npz is missing, truncated or has other contents"),
        ):
            solve(folder)
