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
from wgf.experiments import EXPERIMENTS, Experiment, LimitConfig, Progress, load
from wgf.experiments._table import Table, in_text


@dataclasses.dataclass(frozen=True)
class Shown:
    """A result of one part, with a table."""

    config: LimitConfig
    number: Any

    def tables(self):
        return (
            Table(("x ", "y"), ["a heading", ["1", f" {float(self.number)}"]], title="Numbers", notes=("a note",)),
            Table(("L",), [["2"]]),
        )

    def table(self):
        return in_text(self.tables())

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


@pytest.mark.parametrize("missing", ["result.npz", "config.json", "table.txt"])
def test_a_folder_without_a_finished_run_is_refused(missing, table, capsys):
    (Path("here") / missing).unlink()
    assert refusal(capsys, "here") == "wgf: `results` must be the folder of a finished run; got 'here'."
    assert refusal(capsys, "nowhere") == "wgf: `results` must be the folder of a finished run; got 'nowhere'."


def test_a_folder_of_no_experiment_is_refused(table, capsys):
    Path("here/config.json").write_text('{"experiment": "voyage"}', encoding="utf-8")
    assert f"`results` must be of one of {sorted(EXPERIMENTS)}; got 'voyage'." in refusal(capsys, "here")


def test_an_unknown_format_is_refused(table, capsys):
    line = refusal(capsys, "here", "--figure", "a.doc")
    assert line == "wgf: `figure` must end in one of ['.png', '.pdf', '.svg']; got 'a.doc'."


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_figure_that_cannot_be_written_is_refused(is_whole, table, capsys):
    if not is_whole:
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
    assert result.config == LimitConfig(seed=2, mesh="prompts=1", out=Path("here"), x64=jnp.zeros(()).itemsize == 8)
    assert isinstance(result.number, jax.Array)
    assert computed == [2]


@pytest.mark.parametrize("place", ["nowhere", "here/result.npz"])
def test_a_program_cannot_read_where_no_finished_run_is(place, table):
    with pytest.raises(ValueError, match=f"`folder` must be the folder of a finished run; got '{place}'"):
        load(place)


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
