import re
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import pytest

from wgf.experiments import LimitConfig, Parts, Progress, _progress
from wgf.experiments._lines import told_in_lines


def task(progress: Progress, name: str, *, solves: int = 1) -> Any:
    """The task's context, whose meter has methods that Diffrax's have not."""
    return progress.task(name, solves=solves)


def test_a_bar_is_drawn_if_it_is_asked_for_and_cleared_at_the_end(capsys):
    progress = Progress(2, show=True)
    with task(progress, "first") as meter:
        meter.report(0.5)
    with task(progress, "second") as meter:
        meter.report(1.0)
        meter.report(0.2)
    progress.close()
    assert "second" in capsys.readouterr().err


def test_the_clock_of_a_bar_runs_while_its_task_reports_nothing(capsys, monkeypatch):
    monkeypatch.setattr(_progress, "_TICK", 0.1)
    with Progress(1, show=True) as progress, progress.task("a long task"):
        time.sleep(2.5)
        shown = capsys.readouterr().err
    assert {"00:00", "00:01", "00:02"} <= set(re.findall(r"00:0\d", shown))


def test_a_bar_is_cleared_after_an_error(capsys):
    """An error message that is printed next starts on an empty line."""
    with pytest.raises(RuntimeError), Progress(1, show=True) as progress, progress.task("a task"):
        raise RuntimeError
    assert capsys.readouterr().err.split("\r")[-1].strip() == ""


@pytest.mark.parametrize("show", [None, False])
def test_no_bar_is_drawn_without_a_terminal_or_if_it_is_not_wanted(show, capsys):
    progress = Progress(1, show)
    with task(progress, "only") as meter:
        assert isinstance(meter, diffrax.NoProgressMeter)
    progress.close()
    assert capsys.readouterr().err == ""


def test_a_bar_is_drawn_in_a_notebook_unless_it_is_not_wanted(capsys, monkeypatch):
    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    for show, drawn in ((None, True), (False, False)):
        with Progress(1, show) as progress:
            progress.run("only", lambda meter: None)
        assert ("only" in capsys.readouterr().err) == drawn


def test_a_task_counts_to_its_end_and_never_back():
    progress = Progress(2, show=True)
    with task(progress, "first") as meter:
        meter.report(0.8)
        meter.report(0.3)
        assert progress._bar.n == 79
    assert progress._bar.n == 100
    # A late report of a solve that has ended.
    meter.report(0.9)
    assert progress._bar.n == 100
    progress.close()


def test_a_task_of_several_solves_counts_them_all():
    progress = Progress(1, show=True)
    with task(progress, "flows", solves=2) as meter:
        for first in (0, 49):
            meter.begin()
            meter.report(0.5)
            assert progress._bar.n == first + 24 + first // 49
    assert progress._bar.n == 100
    progress.close()


def test_tasks_run_side_by_side_each_with_its_own_share_of_the_bar():
    """Each task waits until both have begun."""
    begun = threading.Barrier(2)

    def task(meter, share):
        meter.report(share)
        begun.wait(timeout=60)

    with Progress(2, True, at_once=2) as progress:
        futures = [progress.start(f"task {i}", task, share) for i, share in enumerate((0.2, 0.5))]
        assert [future.result() for future in futures] == [None, None]
        assert progress._bar.n == 200


@pytest.mark.parametrize("double", [False, True])
def test_a_task_in_a_thread_has_the_settings_of_its_caller(double):
    """JAX keeps these settings per thread."""

    def settings(_):
        return (
            jnp.zeros(()).dtype,
            jax.config.jax_default_device,  # pyright: ignore[reportAttributeAccessIssue]
            jax.config.jax_default_matmul_precision,  # pyright: ignore[reportAttributeAccessIssue]
            jax.sharding.get_mesh(),
        )

    device = jax.devices()[0]
    mesh = jax.make_mesh((1,), ("prompts",))
    with (
        Progress(1, False) as progress,
        jax.enable_x64(double),
        jax.default_device(device),
        jax.default_matmul_precision("tensorfloat32"),
        jax.set_mesh(mesh),
    ):
        found = progress.start("settings", settings).result()
    assert found == (jnp.float64 if double else jnp.float32, device, "tensorfloat32", mesh)


def test_an_error_in_a_task_is_raised_and_tasks_that_have_not_begun_are_dropped():
    def fail(meter):
        raise RuntimeError("no luck")

    begun = []

    def job():
        with Progress(3, False, at_once=1) as progress:
            failed = progress.start("first", fail)
            progress.start("second", lambda meter: time.sleep(0.5))
            progress.start("third", begun.append)
            failed.result()

    with pytest.raises(RuntimeError, match="no luck"):
        job()
    assert not begun


def in_lines(log, show, tasks=("first", "second")):
    """A job of two tasks within a command."""
    with told_in_lines(log), Progress(len(tasks), show) as progress:
        for name in tasks:
            progress.run(name, lambda meter: None)


def test_a_command_without_a_terminal_writes_a_line_after_each_task(capsys):
    in_lines(None, None)
    err = capsys.readouterr().err
    assert err == "wgf: 1 of 2 parts done in 0 s; done: first\nwgf: 2 of 2 parts done in 0 s; done: second\n"


@pytest.mark.parametrize("show", [True, False])
def test_lines_go_to_the_log_alone_where_there_is_a_bar_or_none_is_wanted(show, capsys, tmp_path):
    in_lines(tmp_path / "log.txt", show)
    assert "parts done" not in capsys.readouterr().err
    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 1)[1].split(" in ")[0] for line in lines] == ["1 of 2 parts done", "2 of 2 parts done"]


def test_a_program_of_ones_own_gets_no_lines(capsys):
    with Progress(1, None) as progress:
        progress.run("a task", lambda meter: None)
    assert capsys.readouterr().err == ""


def test_a_long_task_is_not_silent(capsys, monkeypatch):
    monkeypatch.setattr(_progress, "_TICK", 0.05)
    monkeypatch.setattr(_progress, "_SILENCE", 0.1)
    with told_in_lines(None), Progress(1, None) as progress, progress.task("a long task"):
        time.sleep(1.0)
        shown = capsys.readouterr().err.splitlines()
    assert 2 <= len(shown) <= 10
    assert shown[0] == "wgf: 0 of 1 parts done in 0 s; running: a long task"


def test_a_bar_estimates_the_time_left_from_what_was_computed(tmp_path):
    parts = Parts(tmp_path, LimitConfig())
    for tasks in (1, 3):
        with Progress(tasks, True, parts=parts) as progress:
            for name in ("first", "second")[:tasks]:
                progress.run(name, lambda meter: time.sleep(0.2) or 1.0)
            found = progress._bar.format_dict
    assert (found["n"], found["total"], found["initial"]) == (200, 300, 100)
    assert re.search(r"67% \|.*\| 00:00<00:00 ", str(progress._bar))
