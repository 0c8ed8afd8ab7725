import dataclasses
import errno
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wgf.experiments import ImagesConfig, LimitConfig, Parts, Progress, _parts
from wgf.experiments._parts import options_of

CONFIG = LimitConfig(seed=3)


class Counted:
    """A computation that counts its calls."""

    def __init__(self, value=None):
        self.calls, self.value = 0, value

    def __call__(self):
        self.calls += 1
        return {"sum": jnp.arange(3.0), "call": self.calls} if self.value is None else self.value


@pytest.fixture
def compute():
    return Counted()


def files(folder):
    return sorted(folder.glob("parts/*"))


def test_a_part_is_computed_once(tmp_path, compute, capsys):
    first = Parts(tmp_path, CONFIG).part("a part", compute)
    second = Parts(tmp_path, CONFIG).part("a part", compute)
    assert compute.calls == first["call"] == second["call"] == 1
    np.testing.assert_array_equal(first["sum"], second["sum"])
    assert capsys.readouterr().err == ""


def test_parts_have_files_of_their_own(tmp_path):
    parts = Parts(tmp_path, CONFIG)
    names = ["lambda = 0.1", "lambda = 0,1", "τ", "σ", "a" * 300, "a" * 301, "../../x"]
    for name in names:
        parts.part(name, Counted(name))
    assert len(files(tmp_path)) == len(names)
    assert [Parts(tmp_path, CONFIG).part(name, Counted("other")) for name in names] == names


def test_without_resuming_a_part_is_computed_anew(tmp_path, compute):
    for _ in range(2):
        Parts(tmp_path, CONFIG, resume=False).part("a part", compute)
    assert compute.calls == 2
    assert Parts(tmp_path, CONFIG).part("a part", compute)["call"] == 2


def test_the_results_folder_is_no_option(tmp_path, compute):
    for out in (None, tmp_path):
        Parts(tmp_path, dataclasses.replace(CONFIG, out=out)).part("a part", compute)
    assert compute.calls == 1
    assert "out" not in options_of(CONFIG)


def others():
    """What the numbers of a part depend on, each changed."""
    yield "options", lambda patch: dataclasses.replace(CONFIG, seed=4)
    for name, value in (("sources", "0123"), ("versions", {"jax": "9"}), ("device", "tpu: v9"), ("data", "0123")):

        def change(patch, name=name, value=value):
            about = _parts.about
            patch.setattr(_parts, "about", lambda config: about(config) | {name: value})
            return CONFIG

        yield name, change


@pytest.mark.parametrize(("name", "change"), list(others()), ids=[name for name, _ in others()])
def test_a_part_of_another_origin_is_not_used_and_one_line_says_so(
    name, change, tmp_path, compute, capsys, monkeypatch
):
    parts = Parts(tmp_path, CONFIG)
    parts.part("a part", compute)
    parts.part("another", compute)
    changed = Parts(tmp_path, change(monkeypatch))
    changed.part("a part", compute)
    changed.part("another", compute)
    assert compute.calls == 4
    assert capsys.readouterr().err == f"wgf: parts in {tmp_path}/parts have other {name}. They are computed anew.\n"
    changed.part("a part", compute)
    assert compute.calls == 4


@pytest.mark.parametrize("double", [False, True])
def test_a_part_of_another_precision_is_not_used(double, tmp_path, compute, capsys):
    for is_double in (double, not double):
        with jax.enable_x64(is_double):
            found = Parts(tmp_path, CONFIG).part("a part", compute)
            assert found["sum"].dtype == (jnp.float64 if is_double else jnp.float32)
    assert "have other precision. They are computed anew." in capsys.readouterr().err


def test_a_part_of_another_precision_of_products_is_not_used(tmp_path, compute, capsys):
    Parts(tmp_path, CONFIG).part("a part", compute)
    with jax.default_matmul_precision("tensorfloat32"):
        Parts(tmp_path, CONFIG).part("a part", compute)
    assert compute.calls == 2
    assert "have other precision." in capsys.readouterr().err


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_damaged_part_is_computed_anew_and_one_line_says_so(keep, tmp_path, compute, capsys):
    Parts(tmp_path, CONFIG).part("a part", compute)
    (file,) = files(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    assert Parts(tmp_path, CONFIG).part("a part", compute)["call"] == 2
    assert capsys.readouterr().err == f"wgf: {file} is missing, damaged or of another release. It is computed anew.\n"
    assert Parts(tmp_path, CONFIG).part("a part", compute)["call"] == 2


def test_a_part_whose_numbers_are_damaged_is_computed_anew(tmp_path, compute, capsys):
    """The header is whole, and one bit of an array is not."""
    Parts(tmp_path, CONFIG).part("a part", Counted(np.zeros(1000)))
    (file,) = files(tmp_path)
    content = bytearray(file.read_bytes())
    content[content.index(b"\0" * 4000) + 2000] = 1
    file.write_bytes(content)
    assert Parts(tmp_path, CONFIG).part("a part", compute)["call"] == 1
    assert "is missing, damaged or of another release. It is computed anew." in capsys.readouterr().err


def test_a_run_goes_on_where_a_part_cannot_be_written(tmp_path, compute, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_parts, "write_tree", full)
    assert Parts(tmp_path, CONFIG).part("a part", compute)["call"] == 1
    line = capsys.readouterr().err
    assert f"{os.strerror(errno.ENOSPC)}). The run goes on, and would not resume from there.\n" in line
    assert files(tmp_path) == []


def test_a_run_goes_on_where_a_part_holds_what_no_file_can(tmp_path, capsys):
    assert callable(Parts(tmp_path, CONFIG).part("a part", lambda: lambda: 0))
    assert "cannot be kept). The run goes on" in capsys.readouterr().err


def test_in_the_end_the_parts_of_this_run_alone_stay(tmp_path, compute):
    Parts(tmp_path, CONFIG).part("of an earlier release", compute)
    parts = Parts(tmp_path, CONFIG)
    parts.part("large", compute, is_temporary=True)
    parts.part("small", compute)
    assert len(files(tmp_path)) == 3
    parts.clean()
    (file,) = files(tmp_path)
    assert file.name.startswith("small-")


def test_what_a_killed_process_has_half_written_is_removed_in_the_end(tmp_path, compute):
    parts = Parts(tmp_path, CONFIG)
    parts.part("a part", compute)
    (tmp_path / "parts" / ".other.npz.123.part").write_bytes(b"half")
    parts.clean()
    assert len(list((tmp_path / "parts").iterdir())) == 1


def test_a_part_of_other_images_is_not_used(tmp_path, compute, capsys):
    root = tmp_path / "cifar"
    root.mkdir()
    config = ImagesConfig(data="cifar10", root=root)
    for content in (b"one", b"other"):
        (root / "data_batch_1.bin").write_bytes(content)
        Parts(tmp_path, config).part("a part", compute)
    assert compute.calls == 2
    assert "have other data." in capsys.readouterr().err


def test_a_folder_without_parts_can_be_cleaned(tmp_path):
    Parts(tmp_path, CONFIG).clean()
    assert list(tmp_path.iterdir()) == []


def test_tasks_of_a_bar_are_kept_by_their_names(tmp_path):
    def square(meter, number, calls):
        calls.append(number)
        return jnp.asarray(number) ** 2

    def run(calls):
        with Progress(2, False, at_once=2, parts=Parts(tmp_path, CONFIG)) as progress:
            later = progress.start("in a thread", square, 2.0, calls)
            return progress.run("here", square, 3.0, calls), later.result()

    first, second = [], []
    assert run(first) == run(second) == (9.0, 4.0)
    assert sorted(first) == [2.0, 3.0]
    assert second == []


def test_a_task_that_fails_is_not_kept(tmp_path):
    def fail(meter):
        raise RuntimeError("no luck")

    with Progress(1, False, parts=Parts(tmp_path, CONFIG)) as progress, pytest.raises(RuntimeError, match="no luck"):
        progress.run("a task", fail)
    assert files(tmp_path) == []
