import dataclasses
import gc
import runpy
import sys

import numpy as np
import pytest

from wgf import cli
from wgf.experiments import EXPERIMENTS, Experiment, LimitConfig
from wgf.experiments._data import load_prompts
from wgf.experiments._results import save_config

QUICK = [
    "limit",
    "--batch",
    "4",
    "--examples",
    "2",
    "--sizes",
    "1",
    "2",
    "--width",
    "4",
    "--replicates",
    "2",
]


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """The configs that the command would run; the runs themselves are left out."""
    configs = []

    class Stub:
        def __init__(self, config):
            configs.append(config)

        def table(self):
            return "the table"

    monkeypatch.setitem(EXPERIMENTS, "limit", Experiment(LimitConfig, Stub))
    monkeypatch.setattr(cli, "save", lambda name, result: tmp_path / "folder")
    return configs


def write(folder, rows=8):
    path = folder / "table.csv"
    path.write_text("a,b,y\n" + "".join(f"{i},{i * i},{i + 0.5}\n" for i in range(rows)), encoding="utf-8")
    return path


def help_text(capsys, *command):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_the_help_of_limit_mentions_every_field(capsys):
    text = help_text(capsys, "limit")
    for field in dataclasses.fields(LimitConfig):
        assert f"--{field.name.replace('_', '-')}" in text, (field.name, text)


def test_the_help_names_the_commands(capsys):
    text = help_text(capsys)
    assert "limit" in text
    assert "rerun" in text


def test_the_help_of_rerun_mentions_its_arguments(capsys):
    text = help_text(capsys, "rerun")
    assert "The config.json, or the results folder" in text
    assert "--out" in text


def test_limit_alone_runs_the_defaults(ran, capsys, tmp_path):
    cli.main(["limit"])
    assert ran == [LimitConfig()]
    assert capsys.readouterr().out == f"the table\nresults: {tmp_path / 'folder'}\n"


def test_options_reach_the_config(ran):
    cli.main(
        [
            "limit",
            "--sizes",
            "1",
            "2",
            "3",
            "4",
            "--taus",
            "0",
            "0.5",
            "--weight-decay",
            "1e-2",
            "--data",
            "diabetes",
        ]
    )
    expected = LimitConfig(sizes=((1, 2), (3, 4)), taus=(0.0, 0.5), weight_decay=1e-2, data="diabetes")
    assert ran == [expected]


def test_quick_changes_the_defaults_and_keeps_what_is_given(ran):
    cli.main(["limit", "--quick"])
    cli.main(["limit", "--width", "9", "--quick"])
    assert ran == [LimitConfig.quick_default(), dataclasses.replace(LimitConfig.quick_default(), width=9)]


def test_rerun_runs_the_saved_config_into_the_folder_given(ran, tmp_path):
    save_config(tmp_path, "limit", LimitConfig(seed=5, sizes=((1, 2),)))
    cli.main(["rerun", str(tmp_path), "--out", str(tmp_path / "new")])
    cli.main(["rerun", str(tmp_path / "config.json")])
    assert ran == [
        LimitConfig(seed=5, sizes=((1, 2),), out=tmp_path / "new"),
        LimitConfig(seed=5, sizes=((1, 2),)),
    ]


def test_an_unknown_option_ends_with_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["limit", "--widht", "3"])
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert "widht" in printed.out + printed.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ["--data", "none.csv"],
            "wgf: `data` must be 'synthetic', 'diabetes' or a CSV file that exists; got 'none.csv'",
        ),
        (
            ["--target", "y"],
            "wgf: `target` goes with a CSV file as `data`; got target 'y' with data 'synthetic'",
        ),
        (
            ["--data", "diabetes", "--target", "y"],
            "wgf: `target` goes with a CSV file as `data`; got target 'y'",
        ),
        (
            ["--data", "diabetes", "--examples", "442"],
            "wgf: `examples` must be below the table's number of rows, 442",
        ),
        (["--batch", "0"], "wgf: `batch` must be a whole number of at least 1; got 0"),
        (["--width", "0"], "wgf: `width` must be a whole number of at least 1; got 0"),
        (["--sizes", "0", "2"], "wgf: `depth` must be a whole number of at least 1; got 0"),
        (["--sizes", "1", "2", "1", "2"], "wgf: `sizes` must be distinct pairs of depth and width"),
        (["--scale", "-1"], "wgf: `scale` must be positive and finite; got -1.0"),
        (["--weight-decay", "-1"], "wgf: `weight_decay` must be finite and not negative; got -1.0"),
        (["--taus", "0", "0"], r"wgf: `taus` must increase; got \[0.0, 0.0\]"),
        (["--taus", "1"], "wgf: `taus` must be a vector of at least two training times"),
        (["--rtol", "0"], "wgf: `rtol` must be positive; got 0.0"),
    ],
)
def test_an_option_that_cannot_be_used_ends_with_one_line(options, text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=text) as stop:
        cli.main([*QUICK, *options])
    assert "\n" not in stop.value.code
    assert not list(tmp_path.iterdir())


def test_a_csv_without_a_target_ends_with_one_line(tmp_path):
    with pytest.raises(SystemExit, match="wgf: `target` must name the column to predict where `data` is a CSV file"):
        cli.main([*QUICK, "--data", str(write(tmp_path))])


def test_a_csv_with_an_unknown_target_ends_with_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"wgf: `target` must be a column of .*, one of \['a', 'b', 'y'\]; got 'z'"):
        cli.main([*QUICK, "--data", str(write(tmp_path)), "--target", "z"])


def test_a_csv_with_a_cell_that_is_no_number_ends_with_one_line(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text() + "1,2,many\n")
    with pytest.raises(SystemExit, match="wgf: `path`: line 10, column 'y' must be a finite number; got 'many'"):
        cli.main([*QUICK, "--data", str(path), "--target", "y"])


def test_a_rerun_without_a_config_ends_with_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"wgf: `config` must be a config.json or the folder of a run"):
        cli.main(["rerun", str(tmp_path)])


def test_a_rerun_of_an_unknown_experiment_ends_with_one_line(tmp_path):
    save_config(tmp_path, "voyage", LimitConfig())
    with pytest.raises(SystemExit, match=r"wgf: `config` must name an experiment of \[.*'limit'.*\]; got 'voyage'"):
        cli.main(["rerun", str(tmp_path)])


def test_a_rerun_of_a_config_with_an_unknown_field_ends_with_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"experiment": "limit", "depth": 3}')
    with pytest.raises(SystemExit, match=r"wgf: `config` must have fields of .*got \['depth'\] besides"):
        cli.main(["rerun", str(tmp_path)])


def test_a_rerun_of_a_file_that_is_no_json_ends_with_one_line(tmp_path):
    (tmp_path / "config.json").write_text("not json")
    with pytest.raises(SystemExit, match="wgf: "):
        cli.main(["rerun", str(tmp_path)])


def test_an_option_beside_the_data_does_not_hide_other_errors(monkeypatch):
    def fail(config):
        raise RuntimeError("a fault of the program")

    monkeypatch.setitem(EXPERIMENTS, "limit", Experiment(LimitConfig, fail))
    with pytest.raises(RuntimeError, match="a fault of the program"):
        cli.main(["limit"])


@pytest.mark.parametrize("name", ["synthetic", "diabetes"])
def test_named_data_are_drawn_at_the_sizes_asked_for(name, key):
    assert load_prompts(key, name, None, batch=3, examples=4, dim=2).tokens.shape == (3, 5, 5)


def test_a_csv_is_drawn_with_its_target(key, tmp_path):
    prompts = load_prompts(key, str(write(tmp_path)), "a", batch=3, examples=4, dim=2)
    assert prompts.tokens.shape == (3, 5, 5)
    # Column y is a + ½: standardised, it equals the target wherever it is shown.
    tokens = np.asarray(prompts.tokens)
    shown = np.min(np.abs(tokens[:, :2, :-1] - tokens[:, 2:3, :-1]).max(axis=2), axis=1)
    assert np.all(shown < 1e-9), shown


def test_the_module_runs_the_command(ran, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["wgf", "limit", "--seed", "4"])
    runpy.run_module("wgf", run_name="__main__", alter_sys=True)
    assert ran == [LimitConfig(seed=4)]


def test_garbage_is_collected_as_before_when_a_command_has_ended(ran):
    before = gc.get_threshold(), gc.get_freeze_count()
    cli.main(QUICK)
    assert ran
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
