"""What README and the pages show is run as printed, in float32: the blocks of one page in order, in one process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from run_block import complaints, run

import wgf

TESTS = Path(__file__).parent
ROOT = TESTS.parent
README = ROOT / "README.md"
# The problems of the pages are small: what takes time is to compile them. The page about devices needs eight.
PAGE_FLAGS = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_force_host_platform_device_count=8"
)


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if blocks(page)]


def run_alone(program: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a program as a user does: no flags of this suite, an empty folder, every value finite."""
    ours = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    return subprocess.run(
        [sys.executable, TESTS / "run_block.py"],
        input=program,
        cwd=folder,
        env=ours | {"PYTHONPATH": str(Path(wgf.__file__).parents[1])} | environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.slow
def test_the_readme_gives_finite_numbers_as_printed(tmp_path):
    program = run_alone("\n".join(blocks(README)), tmp_path)
    assert program.returncode == 0, program.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in PAGES])
def test_a_page_gives_finite_numbers_as_printed(page, tmp_path):
    program = run_alone("\n".join(blocks(page)), tmp_path, XLA_FLAGS=PAGE_FLAGS)
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


def test_readme_has_the_block_and_the_commands_that_are_tested():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    assert len(blocks(README)) == 1
    commands = [line for line in lines if line.startswith("python3 -m venv .venv && ")]
    assert len(commands) == 2
    assert commands[0].endswith("wgf limit")
    assert commands[1].endswith(".venv/bin/pytest -n auto --dist loadscope")


def test_every_how_to_has_blocks_that_are_tested():
    assert {page for page in (ROOT / "docs" / "how-to").glob("*.md") if page not in PAGES} == set()
