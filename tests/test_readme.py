"""What the README shows is run: each of its Python blocks, in an interpreter of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", [1, *(pytest.param(block, marks=pytest.mark.slow) for block in (0, 2, 3))])
def test_python_block_runs_as_it_stands(block, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-c", BLOCKS[block]]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr[-3000:]


def test_readme_has_the_blocks_and_commands_that_are_tested():
    assert len(BLOCKS) == 5
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv .venv && ")]
    assert len(commands) == 2
    assert commands[0].endswith("wgf limit")


def test_imports_run_down_the_staircase():
    """prompts and encoders at the foot, the command line at the top: no module imports from a room above its own."""
    floors = [
        "_checks _draws _mesh _outline",
        "prompts encoders",
        "measures",
        "models companions transport",
        "objective sharding",
        "flows",
        "analysis",
    ]
    floors += ["plot", "experiments", "cli", "__main__ __init__"]
    rank = {room: floor for floor, rooms in enumerate(floors) for room in rooms.split()}
    upward = []
    for path in (ROOT / "wgf").rglob("*.py"):
        parts = path.relative_to(ROOT / "wgf").with_suffix("").parts
        for dots, target in re.findall(r"^from (\.+)([\w.]*) import", path.read_text(), re.MULTILINE):
            room = (*parts[: len(parts) - len(dots)], *target.split("."))[0]
            if room and rank[room] > rank[parts[0]]:
                upward.append(f"{'.'.join(parts)} -> {room}")
    assert not upward, upward
