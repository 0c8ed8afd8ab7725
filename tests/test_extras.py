"""The core needs only what the mathematics needs. The rest is in extras, and an error names the missing one."""

import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from helpers import regression

import wgf
from wgf._extras import needed

HEAVY = ("matplotlib", "orbax", "ott", "pandas", "scipy.stats", "sklearn", "tensorstore", "tyro", "xarray")


def without(monkeypatch, *modules):
    """As if these modules were not installed."""
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def test_the_core_imports_no_extra():
    script = f"import sys, wgf; print([name for name in {HEAVY} if name in sys.modules])"
    environment = {"PYTHONPATH": str(Path(wgf.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[]\n"


def test_a_checkpoint_without_orbax_names_the_extra(monkeypatch, tmp_path):
    without(monkeypatch, "orbax", "orbax.checkpoint")
    prompts = regression(jax.random.key(0))
    encoder = wgf.encoders.Perceptron(prompts.token_dim)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder).layered(1, 1, jax.random.key(1)))
    message = r'`directory` needs orbax, which is not installed. Run: pip install "wgf-jax\[checkpoints\]"'
    with pytest.raises(ImportError, match=message):
        wgf.run(wgf.Objective(prompts), model, jnp.array([0.0, 0.1]), directory=tmp_path / "run")


def test_an_export_without_xarray_names_the_extra(monkeypatch):
    without(monkeypatch, "xarray")
    one = jnp.ones(1)
    solution = wgf.flows.TrainSolution(
        jnp.ones(1, int), None, one, one, one, one[:, None], one, wgf.flows.RESULTS.successful
    )
    with pytest.raises(ImportError, match=r'`to_xarray` needs xarray, .* Run: pip install "wgf-jax\[xarray\]"'):
        solution.to_xarray()


@pytest.mark.parametrize("draw", [partial(wgf.prompts.diabetes, batch=2, examples=2), wgf.prompts.digits])
def test_data_without_scikit_learn_name_the_extra(monkeypatch, draw):
    without(monkeypatch, "sklearn", "sklearn.datasets", "sklearn.preprocessing")
    with pytest.raises(ImportError, match=r'needs sklearn, which is not installed. Run: pip install "wgf-jax\[data\]"'):
        draw(jax.random.key(0))


def test_the_command_line_without_its_libraries_names_the_extra(monkeypatch):
    without(monkeypatch, "tyro")
    for module in ("wgf.cli", "wgf.__main__"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit, match=r'wgf: the command line needs tyro.*Run: pip install "wgf-jax\[cli\]"'):
        runpy.run_module("wgf", run_name="__main__", alter_sys=True)


def test_an_installed_library_that_lacks_another_one_is_not_blamed(monkeypatch, tmp_path):
    (tmp_path / "installed_library.py").write_text("import another_library\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'another_library'"):
        needed("installed_library", "data", "`x`")


def test_figures_and_studies_are_there_without_an_import_of_their_own():
    script = (
        "import wgf, sys; assert 'matplotlib' not in sys.modules; print(wgf.plot.flow_curves, wgf.experiments.limit)"
    )
    environment = {"PYTHONPATH": str(Path(wgf.__file__).parents[1]), "MPLBACKEND": "Agg"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert "flow_curves" in done.stdout
    with pytest.raises(AttributeError, match="module 'wgf' has no attribute 'plots'"):
        wgf.plots  # noqa: B018
