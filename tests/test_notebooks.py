"""The notebooks run as printed, from an empty kernel, and every value that they leave is finite."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

import wgf

TESTS = Path(__file__).parent
# What the last cell of each is followed by.
CHECK = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from run_block import complaints
assert not (found := complaints(dict(globals()))), found
"""
NOTEBOOKS = sorted((TESTS.parent / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    # Kernels inherit the environment: run as a reader does, in float32, at full optimisation.
    for name in ("XLA_FLAGS", "JAX_ENABLE_X64"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(wgf.__file__).parents[1]))
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(CHECK))
    nbclient.NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_executed(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_prints_fits_a_page(path):
    """No line is wider than 100 columns, and there are no warnings, errors or paths of the machine that ran it."""
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    texts = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in outputs]
    assert max(len(line) for text in texts for line in text.splitlines()) <= 100
    assert not [text for text in texts if re.search(r"Warning|Traceback|/home/|/root/|/tmp/", text)]
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert all(not cell.metadata for cell in notebook.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_to_files(path):
    notebook = nbformat.read(path, as_version=4)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", prose) if not target.startswith("http")]
    assert not [target for target in targets if not (path.parent / target.partition("#")[0]).is_file()]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_site_lists_a_notebook(path):
    assert f"- notebooks/{path.stem}.md" in (TESTS.parent / "mkdocs.yml").read_text(encoding="utf-8")
