"""What README and the documents show is run as printed: in float32, each Python block in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from run_block import complaints, run

TESTS = Path(__file__).parent
ROOT = TESTS.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


BLOCKS = blocks(ROOT / "README.md")


def run_alone(block: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a block as a user does: no flags of this suite, an empty folder, every value finite."""
    ours = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    return subprocess.run(
        [sys.executable, TESTS / "run_block.py"],
        input=block,
        cwd=folder,
        env=ours | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


# The gate runs all of them; the short command runs one.
@pytest.mark.parametrize(
    "block", [pytest.param(i, marks=[] if i == 2 else pytest.mark.slow) for i in range(len(BLOCKS))]
)
def test_a_block_of_the_readme_gives_finite_numbers_as_printed(block, tmp_path):
    program = run_alone(BLOCKS[block], tmp_path)
    assert program.returncode == 0, program.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_the_blocks_of_a_document_give_finite_numbers_as_printed(page, tmp_path):
    flags = "--xla_force_host_platform_device_count=8"
    for block in blocks(page):
        program = run_alone(block, tmp_path, XLA_FLAGS=flags)
        assert program.returncode == 0, program.stderr[-3000:]


@pytest.mark.parametrize(
    "program",
    [
        "import jax.numpy as jnp\nx = jnp.array([1.0, jnp.nan])",
        "values = {'a': [1.0, float('inf')]}",
        "import numpy as np\nnp.array([1.0, -np.inf])",
        "float('nan')",
    ],
)
def test_a_value_that_is_not_finite_is_found(program):
    assert len(complaints(run(program))) == 1
    assert not complaints(run("x = 1.0\n[2.0, {'b': 3.0}]"))


def test_readme_has_the_blocks_and_commands_that_are_tested():
    assert len(BLOCKS) == 5
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv .venv && ")]
    assert len(commands) == 2
    assert commands[0].endswith("wgf limit")
