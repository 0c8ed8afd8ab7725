"""Tiny runs of the benchmark scripts: each prints its table and writes its numbers with where they come from."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
