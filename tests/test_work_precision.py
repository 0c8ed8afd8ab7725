"""The benchmark of work against precision: its rule of counting, its reading of ladders, and a tiny run of it all."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from colour_vision import SIGHTS, nearest

import wgf

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    """The script as a module."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module("work_precision")
    finally:
        sys.path.remove(str(FOLDER))


@pytest.mark.parametrize(
    ("level", "expected"),
    [(0.2, 100), (0.1, 100), (0.05, 400), (0.01, 10_000)],
    ids=["before the first", "the first", "between", "the last"],
)
def test_the_cost_of_an_error(benchmark, level, expected):
    found = benchmark.cost_at(np.array([100, 10_000]), np.array([0.1, 0.01]), level)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_no_cost_beyond_the_last_point(benchmark):
    assert benchmark.cost_at(np.array([100, 10_000]), np.array([0.1, 0.01]), 0.005) is None


@pytest.mark.parametrize("sight", SIGHTS)
def test_the_variants_are_told_apart(benchmark, sight):
    """By colour, also without receptors of red or of green light, and by their marks."""
    report = json.loads((FOLDER / "results" / "work_precision.json").read_text(encoding="utf-8"))
    axes = benchmark.figure(report).axes[0]
    lines = [container.lines[0] for container in axes.containers]
    assert len(lines) == 8
    difference, *pair = nearest([line.get_color() for line in lines], sight)
    assert difference > 15, pair
    assert len({line.get_marker() for line in lines}) == 8
    for line, container in zip(lines, axes.containers, strict=True):
        assert (line.get_linestyle() == "--") == container.get_label().startswith("finite")


@pytest.mark.slow
def test_a_quick_run_measures_writes_and_draws(tmp_path):
    command = [sys.executable, str(FOLDER / "work_precision.py"), "--quick", "--results", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(wgf.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Evaluations for a relative error") == 1
    assert done.stdout.count("Seconds for a relative error") == 1
    report = json.loads((tmp_path / "work_precision_quick.json").read_text(encoding="utf-8"))
    found = report["attention, P = 8"]
    first, *_, last = found["runs"]
    assert first["evaluations"] == (4 * found["steps"] + 3) * 4 * 8
    assert 0 < last["error"] < first["error"] < 1
    assert found["reference"]["depth_error"] < 1e-2
    assert (tmp_path / "work_precision_quick.png").stat().st_size > 10_000
