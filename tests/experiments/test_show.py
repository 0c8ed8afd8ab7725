import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import wgf
from wgf import cli
from wgf._storage import tree
from wgf.experiments import EXPERIMENTS, AbstractResult, Experiment, LimitConfig, Progress, load
from wgf.experiments._table import Table


@dataclasses.dataclass(frozen=True, repr=False)
class Shown(AbstractResult):
    """A result of one part, with a table."""

    config: LimitConfig
    number: Any

    def tables(self):
        return (
            Table(("x ", "y"), ["a heading", ["1", f" {float(self.number)}"]], title="Numbers", notes=("a note",)),
            Table(("L",), [["2"]]),
        )

    def arrays(self):
        return {"number": self.number}

    def figure(self):
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([0, float(self.number)])
        return figure


@pytest.fixture
def computed(monkeypatch, tmp_path):
    """The seeds of the parts that were computed, by an experiment of one part."""
    seeds = []

    def compute(_, config):
        seeds.append(config.seed)
        return jnp.asarray(0.1) + config.seed

    def run(config, *, parts=None, show_progress=None):
        with Progress(1, False, parts=parts) as progress:
            return Shown(config, progress.run("the part", compute, config))

    monkeypatch.setitem(EXPERIMENTS, "limit", Experiment(LimitConfig, run, keeps_parts=True))
    monkeypatch.setattr(tree, "_PACKAGES", (*tree._PACKAGES, Shown.__module__.partition(".")[0]))
    monkeypatch.chdir(tmp_path)
    return seeds


@pytest.fixture
def table(computed, capsys):
    """The table of a finished run in the folder `here`."""
    cli.main(["limit", "--seed", "2", "--mesh", "prompts=1", "--device", "cpu", "--out", "here"])
    return capsys.readouterr().out.partition("\nresults")[0]


def refusal(capsys, *command):
    with pytest.raises(SystemExit) as stop:
        cli.main(["show", *command])
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


def test_table_and_figure_are_made_anew_and_nothing_is_computed(table, computed, capsys):
    Path("here/table.txt").write_text("old", encoding="utf-8")
    Path("here/limit.png").write_bytes(b"old")
    remove_parts()
    cli.main(["show", "here"])
    assert capsys.readouterr() == (f"{table}\nfigure: {Path('here/limit.png')}\n", "")
    assert Path("here/limit.png").read_bytes().startswith(b"\x89PNG")
    assert computed == [2]


def test_json_alone_draws_no_figure(table, capsys):
    Path("here/limit.png").unlink()
    cli.main(["show", "here", "--json"])
    assert capsys.readouterr().err == ""
    assert not Path("here/limit.png").exists()
    cli.main(["show", "here", "--json", "--figure", "mine.svg"])
    assert capsys.readouterr().err == "figure: mine.svg\n"


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_figure_has_the_format_of_its_name(suffix, start, table, capsys):
    before = Path("here/limit.png").read_bytes()
    cli.main(["show", "here", "--figure", f"mine.{suffix}"])
    assert Path(f"mine.{suffix}").read_bytes().startswith(start)
    assert Path("here/limit.png").read_bytes() == before
    assert capsys.readouterr().out.endswith(f"figure: mine.{suffix}\n")


def test_the_tables_are_printed_as_json(table, capsys):
    cli.main(["show", "here", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["experiment"] == "limit"
    first, second = found["tables"]
    number = str(float(jnp.asarray(0.1) + 2))
    assert first == {"title": "Numbers", "heads": ["x", "y"], "rows": ["a heading", ["1", number]], "notes": ["a note"]}
    assert second == {"title": None, "heads": ["L"], "rows": [["2"]], "notes": []}


def test_a_run_is_shown_in_its_own_precision(computed, capsys):
    for double in (True, False):
        with jax.enable_x64(double):
            cli.main(["limit", "--out", f"{double}"])
    capsys.readouterr()
    for double in (True, False):
        for here in (True, False):
            with jax.enable_x64(here):
                cli.main(["show", f"{double}"])
            table = Path(f"{double}/table.txt").read_text(encoding="utf-8")
            assert capsys.readouterr().out.startswith(table)
    assert len(computed) == 2


def test_a_folder_without_a_finished_run_is_refused(table, capsys):
    Path("here/result.npz").unlink()
    assert refusal(capsys, "here") == "wgf: `results` must be the folder of a finished run; got 'here'."
    assert refusal(capsys, "nowhere") == "wgf: `results` must be the folder of a finished run; got 'nowhere'."


def test_the_file_of_the_result_is_enough(table, computed, capsys):
    Path("alone").mkdir()
    Path("here/result.npz").rename("alone/result.npz")
    cli.main(["show", "alone"])
    assert capsys.readouterr().out == f"{table}\nfigure: {Path('alone/limit.png')}\n"
    assert computed == [2]


def test_the_table_is_printed_where_no_figure_can_be_written(table, capsys):
    Path("here/limit.png").unlink()
    Path("here/limit.png").mkdir()
    with pytest.raises(SystemExit) as stop:
        cli.main(["show", "here"])
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == f"{table}\n"
    assert "`figure` must be a file that can be written; got here" in printed.err
    cli.main(["show", "here", "--json"])
    assert json.loads(capsys.readouterr().out)["experiment"] == "limit"


@pytest.mark.parametrize("missing", ["config.json", "table.txt"])
def test_a_run_of_another_release_without_its_files_is_refused(missing, table, capsys):
    forget_result()
    (Path("here") / missing).unlink()
    assert refusal(capsys, "here") == f"wgf: {REASON}"


def without_number(entries):
    tree = json.loads(str(entries["result/tree.json"]))
    del tree["fields"]["number"]
    return {"result/tree.json": json.dumps(tree)}


def without_name(entries):
    return {"about": json.dumps({"precision": "float32"})}


def with_a_path_as_its_name(entries):
    return {"about": json.dumps({**json.loads(str(entries["about"])), "experiment": "../evil"})}


CHANGES = [
    without_number,
    without_name,
    with_a_path_as_its_name,
    lambda _: {"about": "[]"},
    lambda _: {"result/tree.json": "3"},
]


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
def test_a_result_of_another_kind_is_of_another_release(change, table, capsys):
    with np.load("here/result.npz") as arrays:
        entries = dict(arrays)
    np.savez("here/result.npz", **entries | change(entries))
    with pytest.raises(ValueError, match="is missing, damaged or of another release"):
        load("here")
    cli.main(["show", "here"])
    assert capsys.readouterr().out.startswith(table)


def test_an_unknown_format_is_refused(table, capsys):
    line = refusal(capsys, "here", "--figure", "a.doc")
    assert line == "wgf: `figure` must end in one of ['.png', '.pdf', '.svg']; got 'a.doc'."


def test_a_saved_figure_that_cannot_be_written_is_refused(table, capsys):
    forget_result()
    line = refusal(capsys, "here", "--figure", "nowhere/a.png")
    assert "`figure` must be a file that can be written; got nowhere/a.png (" in line.replace("\\", "/")


def remove_parts():
    for part in Path("here/parts").iterdir():
        part.unlink()
    Path("here/parts").rmdir()


def forget_result():
    """Leave the named arrays alone, as an earlier release wrote them."""
    with np.load("here/result.npz") as arrays:
        named = {name: arrays[name] for name in ("number", "about")}
    np.savez("here/result.npz", **named)


REASON = f"{Path('here/result.npz')} is missing, damaged or of another release."


def test_a_run_of_another_release_is_shown_as_it_was_saved(table, computed, capsys):
    forget_result()
    cli.main(["show", "here", "--figure", "copy.png"])
    assert capsys.readouterr() == (
        f"{table}\nfigure: copy.png\n",
        f"wgf: {REASON} Table and figure are those that were saved.\n",
    )
    assert Path("copy.png").read_bytes() == Path("here/limit.png").read_bytes()
    cli.main(["show", "here"])
    assert computed == [2]
    capsys.readouterr()
    for options in (["--json"], ["--figure", "a.pdf"]):
        line = refusal(capsys, "here", *options)
        assert line == f"wgf: {REASON}"


def test_a_run_of_another_release_without_its_figure_has_its_table(table, capsys):
    forget_result()
    Path("here/limit.png").unlink()
    cli.main(["show", "here"])
    assert capsys.readouterr().out == f"{table}\nfigure: none; here holds no limit.png\n"
    line = refusal(capsys, "here", "--figure", "copy.png")
    assert line == f"wgf: `figure` needs a result or limit.png; here has no such file, and {REASON}"
    assert not Path("copy.png").exists()


def test_the_numbers_of_a_shown_run_are_those_that_were_saved(table):
    with np.load("here/result.npz") as arrays:
        assert str(float(arrays["number"])) in table


def test_a_program_reads_the_result_of_a_finished_run(table, computed):
    result = load("here")
    assert result.table() == table
    assert result.config == LimitConfig(seed=2, mesh="prompts=1", x64=jnp.zeros(()).itemsize == 8)
    assert repr(result) == "Shown with table(), figure() and arrays()"
    assert result._repr_html_() == f"<pre>{table}</pre>"
    assert isinstance(result.number, jax.Array)
    assert computed == [2]


@pytest.mark.parametrize("place", ["nowhere", "here/result.npz"])
def test_a_program_cannot_read_where_no_finished_run_is(place, table):
    with pytest.raises(ValueError, match=f"`folder` must be the folder of a finished run; got '{place}'"):
        load(place)


def test_a_result_in_float64_is_saved_and_read_in_any_precision(computed, tmp_path):
    """The config says the precision; the session has another."""
    with jax.enable_x64(True):
        result = Shown(LimitConfig(x64=True, out=tmp_path), jnp.asarray(0.1, float))
    with jax.enable_x64(False):
        wgf.experiments.save("limit", result)
        found = load(tmp_path)
    assert found.number.dtype == np.float64
    assert found.config.x64
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["about"]["precision"] == "float64"


def test_what_was_read_is_saved_in_a_folder_of_its_own(table):
    before = Path("here/result.npz").read_bytes()
    folder = wgf.experiments.save("limit", load("here"))
    assert folder.parent == Path("results")
    assert Path("here/result.npz").read_bytes() == before


def test_the_paths_of_a_result_mean_the_same_in_every_folder(computed, tmp_path, monkeypatch):
    Path("data.csv").write_text("1,2\n", encoding="utf-8")
    folder = wgf.experiments.save("limit", Shown(LimitConfig(data="data.csv", out=Path("here")), np.float32(1)))
    assert load(folder).config.data == str(tmp_path / "data.csv")


def test_a_program_is_told_of_a_damaged_file(table):
    Path("here/result.npz").write_bytes(b"damage")
    with pytest.raises(ValueError, match="is missing, damaged or of another release"):
        load("here")


def test_a_result_of_classes_from_elsewhere_is_kept_as_numbers(tmp_path, monkeypatch):
    """Its class is of no package that a file may name."""
    monkeypatch.chdir(tmp_path)
    folder = wgf.experiments.save("limit", Shown(LimitConfig(out=tmp_path), np.arange(3.0)[1]))
    with np.load(folder / "result.npz") as arrays:
        assert set(arrays) == {"number", "about"}
