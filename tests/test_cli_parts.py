"""Runs of the command that are resumed, refused, locked, or fail in part."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stubbed import TABLE, Stub

import wgf
from wgf import cli
from wgf._storage import lock
from wgf._storage.lock import locked
from wgf.experiments import EXPERIMENTS, Experiment, LimitConfig, Progress


class Kept(Stub):
    """A result of two parts."""

    def __init__(self, config, numbers, failures=()):
        super().__init__(config)
        self.numbers, self.failures = numbers, failures

    def arrays(self):
        return {"numbers": np.array(self.numbers)}


class Job:
    """An experiment of two parts, which says what it computes."""

    def __init__(self):
        self.computed, self.configs, self.failures, self.breaks = [], [], (), False

    def __call__(self, config, *, parts=None, show_progress=None):
        self.configs.append(config)
        with Progress(2, False, parts=parts) as progress:
            numbers = [progress.run(name, self.part, name, config.seed) for name in ("first", "second")]
        return Kept(config, numbers, self.failures)

    def part(self, _, name, seed):
        if self.breaks and name == "second":
            raise RuntimeError("the power went out")
        self.computed.append(name)
        return jnp.asarray(0.1) * seed + len(name)


@pytest.fixture
def job(monkeypatch, tmp_path):
    job = Job()
    monkeypatch.setitem(EXPERIMENTS, "limit", Experiment(LimitConfig, job, keeps_parts=True))
    monkeypatch.chdir(tmp_path)
    return job


def broken(job, *command):
    job.breaks = True
    with pytest.raises(RuntimeError, match="the power went out"):
        cli.main(["limit", "--out", "here", *command])
    job.breaks = False


def refusal(capsys, *command):
    """The one line that a command ends with that was refused."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(command))
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


def saved(folder="here"):
    with np.load(Path(folder) / "result.npz") as arrays:
        return arrays["numbers"]


def seed_of(folder="here"):
    return json.loads((Path(folder) / "config.json").read_bytes())["seed"]


BOTH = ["first", "second"]


@pytest.mark.parametrize("again", [["limit", "--out", "here", "--seed", "7"], ["rerun", "here", "--out", "here"]])
def test_the_same_command_resumes_with_what_is_there(again, job, capsys):
    broken(job, "--seed", "7")
    assert seed_of() == 7
    cli.main(again)
    assert job.computed == BOTH
    assert capsys.readouterr() == (f"{TABLE}\nresults: here\n", "")
    cli.main(["limit", "--out", "there", "--seed", "7"])
    assert job.computed == BOTH * 2
    assert saved().tobytes() == saved("there").tobytes()


def test_a_finished_run_is_read_and_not_computed(job, capsys):
    for _ in range(2):
        cli.main(["limit", "--out", "here"])
    assert job.computed == BOTH
    assert capsys.readouterr() == (f"{TABLE}\nresults: here\n" * 2, "")


def test_a_run_can_be_computed_anew(job):
    for command in (["limit"], ["limit", "--no-resume"], ["rerun", "here", "--no-resume"]):
        cli.main([*command, "--out", "here"])
    assert job.computed == BOTH * 3


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (["limit", "--seed", "1"], "other `seed`"),
        (["limit", "--seed", "1", "--x64", "--taus", "0", "1"], "other `taus` and `seed` and `x64`"),
        (["markov"], "the experiment 'limit'"),
    ],
)
def test_a_finished_run_with_other_options_is_refused_and_kept(command, what, job, capsys):
    cli.main(["limit", "--out", "here"])
    capsys.readouterr()
    before = {path: path.read_bytes() for path in Path("here").rglob("*") if path.is_file()}
    assert refusal(capsys, *command, "--out", "here") == (
        f"wgf: `out` must not hold another run; here holds a finished run with {what}. Name another folder, or pass "
        "--force to replace it."
    )
    assert job.computed == BOTH
    assert {path: path.read_bytes() for path in Path("here").rglob("*") if path.is_file()} == before


def test_a_finished_run_whose_options_cannot_be_read_is_refused(job, capsys):
    cli.main(["limit", "--out", "here"])
    capsys.readouterr()
    Path("here/config.json").write_text("{", encoding="utf-8")
    assert "holds a finished run with an unreadable config.json. Name" in refusal(capsys, "limit", "--out", "here")


@pytest.mark.parametrize("command", [["limit", "--seed", "1"], ["rerun", "other.json"]])
def test_a_finished_run_is_replaced_by_force(command, job, capsys):
    Path("other.json").write_text('{"experiment": "limit", "seed": 1}', encoding="utf-8")
    cli.main(["limit", "--out", "here"])
    cli.main([*command, "--out", "here", "--force"])
    assert job.computed == BOTH * 2
    assert seed_of() == 1
    assert "have other options. They are computed anew." in capsys.readouterr().err
    np.testing.assert_allclose(saved(), [5.1, 6.1], rtol=1e-6)


def test_an_unfinished_run_with_other_options_is_not_used(job, capsys):
    broken(job, "--seed", "7")
    cli.main(["limit", "--out", "here", "--seed", "8"])
    assert job.computed == ["first", *BOTH]
    assert seed_of() == 8
    err = capsys.readouterr().err
    assert err == f"wgf: parts in {Path('here/parts')} have other options. They are computed anew.\n"


def test_an_error_in_an_option_keeps_the_options_of_an_unfinished_run(job, monkeypatch, capsys):
    broken(job, "--seed", "7")

    def refuse(config, parts):
        raise ValueError("`scale` must be positive.")

    monkeypatch.setitem(EXPERIMENTS, "limit", Experiment(LimitConfig, refuse, keeps_parts=True))
    for _ in range(2):
        assert refusal(capsys, "limit", "--out", "here", "--seed", "8") == "wgf: `scale` must be positive."
        assert seed_of() == 7


def test_an_error_in_an_option_after_a_part_keeps_the_options(job, monkeypatch, capsys):
    def refuse(config, parts):
        parts.part("first", lambda: 1)
        raise ValueError("`scale` must be positive.")

    monkeypatch.setitem(EXPERIMENTS, "limit", Experiment(LimitConfig, refuse, keeps_parts=True))
    refusal(capsys, "limit", "--out", "here", "--seed", "8")
    assert seed_of() == 8


@pytest.mark.skipif(lock.fcntl is None, reason="this system has no fcntl, and folders are not locked")
def test_a_folder_in_use_is_refused(job, capsys):
    broken(job)
    before = sorted(Path("here").rglob("*"))
    with locked(Path("here")):
        line = refusal(capsys, "limit", "--out", "here")
    assert line == (f"wgf: here is in use by process {os.getpid()}. Wait until it has ended, or name another folder.")
    assert sorted(Path("here").rglob("*")) == before
    assert job.computed == ["first"]


def test_a_folder_is_free_when_a_run_has_ended(job):
    cli.main(["limit", "--out", "here"])
    assert not Path("here/.lock").exists()
    with locked(Path("here")):
        pass


def test_several_processes_keep_no_parts(job, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for _ in range(2):
        cli.main(["limit", "--out", "here"])
    assert job.computed == BOTH * 2
    assert not Path("here/parts").exists()


def log_of(*command):
    """The lines of the log file of a command, without their times."""
    cli.main([*command, "--log", "log.txt"])
    return [line.split(" ", 1)[1] for line in Path("log.txt").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("command", [["limit"], ["rerun", "other.json"]])
def test_a_log_file_holds_the_lines_of_progress(command, job, capsys):
    Path("other.json").write_text('{"experiment": "limit"}', encoding="utf-8")
    first, *lines = log_of(*command, "--out", "here")
    assert first.startswith(f"`wgf limit` begins, wgf {wgf.__version__}, python ")
    assert first.endswith("; results: here")
    assert [line.split(" in ")[0] for line in lines[:2]] == ["1 of 2 parts done", "2 of 2 parts done"]
    assert lines[2:] == ["the results are in here"]
    assert capsys.readouterr() == (f"{TABLE}\nresults: here\n", "")


def test_a_log_file_holds_what_is_told_and_what_ends_a_run(job):
    broken(job, "--seed", "7", "--log", "log.txt")
    job.failures = ("lambda = 1: The flow stopped.",)
    with pytest.raises(SystemExit):
        log_of("limit", "--out", "here", "--seed", "8")
    lines = [line.split(" ", 1)[1] for line in Path("log.txt").read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if "parts done" not in line and "begins" not in line] == [
        "ended by RuntimeError: the power went out",
        f"parts in {Path('here/parts')} have other options. They are computed anew.",
        "the results are in here",
        "ended by SystemExit: wgf: 1 part of the run failed. lambda = 1: The flow stopped.",
    ]


def test_a_log_file_that_cannot_be_written_is_refused_before_the_run(job, capsys):
    line = refusal(capsys, "limit", "--out", "here", "--log", "none/log.txt")
    assert line.startswith("wgf: `log` must be a file that can be written; got none/log.txt (")
    assert not job.computed
    assert list(Path().iterdir()) == []


def test_a_log_file_may_be_in_the_results_folder(job):
    cli.main(["limit", "--out", "here", "--log", "here/log.txt"])
    assert "2 of 2 parts done" in Path("here/log.txt").read_text(encoding="utf-8")


def test_parts_that_failed_are_told_after_the_table_and_the_others_are_saved(job, capsys):
    job.failures = tuple(f"lambda = {n}: The flow stopped." for n in range(5))
    with pytest.raises(SystemExit) as stop:
        cli.main(["limit", "--out", "here"])
    assert stop.value.code == (
        "wgf: 5 parts of the run failed, the table marks them. The first one: lambda = 0: The flow stopped."
    )
    assert capsys.readouterr().out == f"{TABLE}\nresults: here\n"
    assert len(saved()) == 2


def test_the_precision_and_the_device_reach_the_run_and_a_rerun(job):
    with jax.enable_x64(False):
        cli.main(["limit", "--out", "plain"])
        cli.main(["limit", "--out", "here", "--x64", "--device", "cpu"])
        cli.main(["rerun", "here", "--out", "again"])
        cli.main(["rerun", "plain", "--out", "changed", "--x64", "--device", "cpu"])
        assert jnp.result_type(float) == jnp.float32
    assert [saved(folder).dtype for folder in ("plain", "here", "again", "changed")] == ["f4", "f8", "f8", "f8"]
    assert [(config.x64, config.device) for config in job.configs] == [(False, None), *[(True, "cpu")] * 3]
    assert json.loads(Path("here/config.json").read_bytes())["about"]["precision"] == "float64"


def test_a_device_that_is_not_there_ends_with_one_line(job, capsys):
    there = {device.platform for device in jax.devices()}
    (kind, *_) = [kind for kind in ("tpu", "gpu") if kind not in there]
    assert refusal(capsys, "limit", "--device", kind).startswith("wgf: `device` must be available to JAX, here one of")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", [["limit"], ["rerun"]])
def test_the_help_explains_the_options_of_a_start(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([*command, "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in (
        "--resume, --no-resume",
        "--force",
        "--log {None}|PATH",
        "--x64",
        "--device {None,cpu,gpu,tpu}",
        "finished parts of the",
    ):
        assert words in text


TINY = [
    *("images", "--heads", "2", "3", "--layers", "1", "--depth", "1", "--epochs", "1", "--saves", "1"),
    *("--seeds", "1", "--batch", "256"),
]


@pytest.mark.slow
def test_a_killed_command_resumes_bit_for_bit(tmp_path):
    """The process is killed after its first part, as by a machine that stops."""

    def start(folder):
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(wgf.__file__).parents[1])}
        command = [sys.executable, "-m", "wgf", *TINY, "--out", folder]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)

    killed, deadline = start("here"), time.monotonic() + 300
    parts = tmp_path / "here" / "parts"
    while not list(parts.glob("*.npz")):
        assert time.monotonic() < deadline
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (part,) = parts.glob("*.npz")
    assert not (tmp_path / "here" / "result.npz").exists()
    written = part.stat().st_mtime_ns, part.read_bytes()
    for folder in ("here", "whole"):
        process = start(folder)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert (part.stat().st_mtime_ns, part.read_bytes()) == written
    assert not (tmp_path / "here" / ".lock").exists()
    with np.load(tmp_path / "here" / "result.npz") as here, np.load(tmp_path / "whole" / "result.npz") as whole:
        assert here.files == whole.files
        for name in set(here.files) - {"about"}:
            assert here[name].tobytes() == whole[name].tobytes(), name
    tables = [(tmp_path / folder / "table.txt").read_bytes() for folder in ("here", "whole")]
    assert tables[0] == tables[1]
