"""Tiny runs of the benchmark scripts: each prints its table and writes its numbers with where they come from."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _gpu_session import Job, Session
from _report import Check

import wgf

FOLDER = Path(__file__).parents[1] / "benchmarks"
ABOUT = {"date", "commit", "python", "machine", "cores", "versions"}


def script(name, *options):
    """Run a script to its end; its output."""
    # In the precision that the script chooses.
    ours = {name: value for name, value in os.environ.items() if name != "JAX_ENABLE_X64"}
    environment = {**ours, "PYTHONPATH": str(Path(wgf.__file__).parents[1])}
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--quick", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(len(line) <= 160 for line in done.stdout.splitlines())
    return done.stdout


@pytest.mark.parametrize("path", ["file", "file/inside", "~nobody-has-this-name/x"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(path, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", ["devices.py", "--output", path])
    with pytest.raises(SystemExit) as stop:
        importlib.import_module("devices").main()
    assert stop.value.code == 2
    assert f"argument --output: must be a folder that can be made and written; got {path} (" in capsys.readouterr().err


@pytest.mark.slow
def test_rhs(tmp_path):
    shown = script("rhs", "--repeats", "1", "--output", str(tmp_path / "rhs.json"))
    report = json.loads((tmp_path / "rhs.json").read_text(encoding="utf-8"))
    assert set(report) >= ABOUT
    assert shown.count("float64") >= len(report["runs"]) / 2
    for run in report["runs"]:
        limit = 1e-4 if run["dtype"] == "float32" else 1e-12
        assert 0 < max(run["difference_from_naive"].values()) < limit
        cores = os.cpu_count()
        assert ("spread" in run["median_seconds"]) == (cores > 1 and run["size"]["B"] % cores == 0)


@pytest.mark.slow
def test_kernel(tmp_path):
    shown = script("kernel", "--output", str(tmp_path))
    report = json.loads((tmp_path / "kernel.json").read_text(encoding="utf-8"))
    assert set(report) >= ABOUT
    claims, prompts, flows = report["tables"]
    assert all(row[4] == "holds" for row in claims["rows"])
    assert [row[2:4] for row in prompts["rows"]] == [[6, 6], [4, 4], [4, 4], [1, 1]]
    for name, least, _, _, rate, *_ in flows["rows"]:
        assert 0 < least < rate, name
        assert name in shown


@pytest.mark.slow
def test_growth(tmp_path):
    shown = script("growth", "--only", "speed", "memory", "compilation", "--output", str(tmp_path))
    report = json.loads((tmp_path / "growth.json").read_text(encoding="utf-8"))
    assert set(report) >= ABOUT
    assert [table["title"] in shown for table in report["tables"]] == [True] * 6
    speeds = next(table for table in report["tables"] if table["title"] == "One velocity")
    assert all(row[2] > 0 and row[3] > 0 for row in speeds["rows"])


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from Linux")
@pytest.mark.heavy
def test_memory(tmp_path):
    """The estimate is the measured peak, within the factor that the docstring of `wgf.memory_estimate` names."""
    shown = script("memory", "--output", str(tmp_path))
    report = json.loads((tmp_path / "memory.json").read_text(encoding="utf-8"))
    assert set(report) >= ABOUT
    (row,) = report["tables"][1]["rows"]
    assert row[0] in shown
    assert row[7] > 100, "MiB, so that the flow outweighs the noise of a process"
    assert 1 / 1.5 < row[8] < 1.5


@pytest.mark.slow
def test_devices(tmp_path):
    script("devices", "--output", str(tmp_path))
    report = json.loads((tmp_path / "devices.json").read_text(encoding="utf-8"))
    assert set(report) >= ABOUT
    one, *others = report["tables"][1]["rows"]
    assert one[-1] == 0, "one device sends nothing"
    assert all(row[-1] > 0 for row in others)


@pytest.mark.slow
def test_sinkhorn(tmp_path):
    shown = script("sinkhorn", "--repeats", "1", "--folder", str(tmp_path))
    report = json.loads((tmp_path / "sinkhorn.json").read_text(encoding="utf-8"))
    assert set(report) >= ABOUT
    assert [table["title"] in shown for table in report["tables"]] == [True] * 4
    for table in report["tables"]:
        assert all(row[4] > 0 and row[8] <= 1e-3 for row in table["rows"])


@pytest.mark.slow
def test_soak(tmp_path):
    script("soak", "--output", str(tmp_path))
    report = json.loads((tmp_path / "soak.json").read_text(encoding="utf-8"))
    assert set(report) >= ABOUT
    assert [row[0] for row in report["tables"][0]["rows"]] == [1, 2, 3, 4, 5]
    assert all(maps > 0 and memory > 0 for _, _, maps, memory in report["tables"][0]["rows"])


@pytest.mark.slow
def test_gpu(tmp_path):
    """On whatever device is here: every part has its lines, and what is missing is named."""
    shown = script("gpu", "--output", str(tmp_path))
    report = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert set(report) >= ABOUT
    assert report["devices"]
    tables = {table["title"]: table["rows"] for table in report["tables"]}
    assert all(title in shown for title in tables)
    claims = tables.pop("Claims")
    assert all(row[-1] == "holds" for row in claims)
    left_out = dict(tables.pop("Left out", ()))
    assert all("PyTorch" in why or name.startswith("torch.compile") for name, why in left_out.items())
    assert len(tables) == 6
    assert all(np.isfinite(cell) for rows in tables.values() for row in rows for cell in row if isinstance(cell, float))
    for title in ("One velocity", "Compile times"):
        assert all(cell > 0 for row in tables[title] for cell in row[2:] if cell is not None)


def test_a_session_leaves_out_what_does_not_fit_and_keeps_what_it_has(tmp_path, capsys):
    titles = {"Numbers": (("name", "value"), "A note.")}
    session = Session(titles, tmp_path, minutes=1, quick=True)
    kept = []

    def first(session):
        session.line("Numbers", "one", 1.5)
        session.claim("Numbers", Check("one is above two", 1.5, 2, 3))
        kept.append(json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8")))

    def breaks(_):
        raise RuntimeError("RESOURCE_EXHAUSTED:\nout of memory")

    def last(session):
        session.line("Numbers", "two", 2.5)

    session.run([Job("first", 30, first), Job("too long", 600, first), Job("breaks", 1, breaks), Job("last", 1, last)])
    assert [row for table in kept[0]["tables"] if table["title"] == "Numbers" for row in table["rows"]] == [
        ["one", 1.5]
    ]
    report = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    tables = {table["title"]: table["rows"] for table in report["tables"]}
    assert tables["Numbers"] == [["one", 1.5], ["two", 2.5]]
    (long, why), (broken, because) = tables["Left out"]
    assert (long, broken) == ("too long", "breaks")
    assert why.startswith("takes about 600 s; ")
    assert because == "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    assert [(check.claim, check.holds) for check in session.checks] == [
        ("one is above two", False),
        ("breaks: fails", False),
    ]
    assert report["quick"]
    assert "one is above two: 1.5, FAILS" in capsys.readouterr().out
