"""A tiny run of the benchmark of convergence against theorems: many programs, a minute or two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import wgf

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "convergence.py"


@pytest.mark.slow
def test_a_quick_run_measures_and_writes(tmp_path):
    ours = {name: value for name, value in os.environ.items() if name != "JAX_ENABLE_X64"}
    environment = {**ours, "PYTHONPATH": str(Path(wgf.__file__).parents[1])}
    command = [sys.executable, str(SCRIPT), "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "convergence.json").read_text(encoding="utf-8"))
    claims, *tables = report["tables"]
    assert claims["rows"] == []
    assert len(tables) == 4
    for table in tables:
        assert table["title"] in done.stdout
        # The gap is seen above the limit's own error.
        assert all(row[2] > row[4] > 0 for row in table["rows"])
