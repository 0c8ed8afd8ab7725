import contextlib
import dataclasses
import errno
import gc
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from stubbed import ENDLESS, TABLE, Stub

import wgf
from wgf import cli
from wgf.experiments import EXPERIMENTS, Experiment, LimitConfig, MarkovConfig, config_from, load_config
from wgf.experiments._config_file import save_config
from wgf.experiments._data import load_prompts

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


STUBBED = Path(__file__).with_name("stubbed.py")
ENVIRONMENT = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": os.pathsep.join([str(Path(wgf.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
}
FILES = ["config.json", "limit.png", "result.npz", "table.txt"]


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """The configs that the command would run, without their folders; the runs themselves are left out."""
    configs = []

    def run(config):
        configs.append(dataclasses.replace(config, out=None))
        return Stub(config)

    monkeypatch.setitem(EXPERIMENTS, "limit", Experiment(LimitConfig, run))
    monkeypatch.chdir(tmp_path)
    return configs


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refusal(capsys, *command):
    """The one line that a command ends with that was typed wrongly."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(map(str, command)))
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("wgf: ")
    return line


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


@pytest.mark.parametrize("command", [(), *((name,) for name in (*EXPERIMENTS, "rerun", "show"))], ids=" ".join)
@pytest.mark.parametrize("columns", [80, 100])
def test_the_help_fits_the_terminal(command, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = help_text(capsys, *command).splitlines()
    assert max(map(len, lines)) <= columns
    # The description is wrapped, and nothing of it is lost.
    description = " ".join(lines[lines.index("") + 1 : lines.index("", lines.index("") + 1)])
    assert description.endswith(".")
    assert "(default: )" not in "".join(lines)


def test_the_version_is_that_of_the_library_and_of_what_computes(capsys):
    cli.main(["--version"])
    lines = capsys.readouterr().out.splitlines()
    assert f"wgf {wgf.__version__}" in lines
    assert f"jax {jax.__version__}" in lines


def test_the_help_of_rerun_mentions_its_arguments(capsys):
    text = help_text(capsys, "rerun")
    assert "The config.json, or the results folder" in text
    assert "--out" in text


def test_limit_alone_runs_the_defaults(ran, capsys, tmp_path):
    cli.main(["limit"])
    assert ran == [LimitConfig()]
    (folder,) = (tmp_path / "results").iterdir()
    assert capsys.readouterr().out == f"{TABLE}\nresults: {folder.relative_to(tmp_path)}\n"
    assert names(folder) == FILES
    assert (folder / "table.txt").read_text(encoding="utf-8") == TABLE + "\n"


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
    assert ran == [LimitConfig(seed=5, sizes=((1, 2),))] * 2
    assert names(tmp_path / "new") == FILES
    assert len(names(tmp_path / "results")) == 1


NAMES = ", ".join([*EXPERIMENTS, "rerun", "show"])


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("limit --widht 3", "wgf limit: error: unrecognized option --widht, did you mean --width?"),
        ("limit --widht=3", "wgf limit: error: unrecognized option --widht, did you mean --width?"),
        ("limit --decay 1", "wgf limit: error: unrecognized option --decay, did you mean --weight-decay?"),
        # An option of `wgf images`.
        ("limit --root x", "wgf limit: error: unrecognized option --root."),
        ("limit --sede 3 --quick", "wgf limit: error: unrecognized option --sede, did you mean --seed?"),
        ("limit --forse", "wgf limit: error: unrecognized option --forse, did you mean --force?"),
        ("limit -q", "wgf limit: error: unrecognized option -q."),
        ("limit extra", "wgf limit: error: unrecognized argument 'extra'."),
        ("rerun here there", "wgf rerun: error: unrecognized argument 'there'."),
        ("limit --sizes 4", "wgf limit: error: --sizes takes whole numbers in groups of 2; got '4'."),
        ("limit --seed x", "wgf limit: error: --seed takes a whole number; got 'x'."),
        ("limit --seed", "wgf limit: error: --seed takes a whole number; got nothing."),
        ("limit --seed --quick", "wgf limit: error: --seed takes a whole number; got nothing."),
        ("limit --weight_decay=y", "wgf limit: error: --weight-decay takes a number; got 'y'."),
        ("limit --taus 0 a --quick", "wgf limit: error: --taus takes numbers; got '0 a'."),
        ("limit --out", "wgf limit: error: --out takes a path; got nothing."),
        ("limit --target", "wgf limit: error: --target takes a word; got nothing."),
        ("limit --device gpus", "wgf limit: error: --device takes one of cpu, gpu, tpu; got 'gpus'."),
        ("limit --sampling a", "wgf limit: error: --sampling takes one of pairs, sobol, independent; got 'a'."),
        ("markov --hard 1", "wgf markov: error: --hard takes 2 numbers; got '1'."),
        ("rerun", "wgf rerun: error: `config` is missing, a path."),
        ("show --json", "wgf show: error: `results` is missing, a path."),
        ("limt", "wgf: error: unrecognized command 'limt', did you mean limit?"),
        ("voyage", f"wgf: error: the command must be one of {NAMES}; got 'voyage'."),
        ("--seed 3 limit", f"wgf: error: the command comes first, one of {NAMES}; got '--seed'."),
        ("--helpp", f"wgf: error: the command comes first, one of {NAMES}; got '--helpp'."),
        ("", f"wgf: error: a command is missing, one of {NAMES}."),
    ],
)
@pytest.mark.parametrize("columns", [40, 200])
def test_a_command_line_typed_wrongly_ends_with_one_line(command, line, columns, ran, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as stop:
        cli.main(command.split())
    assert stop.value.code == 2
    program = line.partition(": ")[0]
    assert capsys.readouterr() == ("", f"{line} See {program} --help.\n")
    assert not ran


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
        (["--sizes", "0", "2"], "wgf: `sizes` must be a whole number of at least 1; got 0"),
        (["--sizes", "1", "2", "1", "2"], "wgf: `sizes` must be distinct pairs of depth and width"),
        (["--scale", "-1"], "wgf: `scale` must be positive and finite; got -1.0"),
        (["--weight-decay", "-1"], "wgf: `weight_decay` must be finite and not negative; got -1.0"),
        (["--taus", "0", "0"], r"wgf: `taus` must increase; got \[0.0, 0.0\]"),
        (["--taus", "1"], "wgf: `taus` must be a vector of at least two training times"),
        (["--taus", "1", "2"], r"wgf: `taus` must begin at 0, where training starts; got 1. Write \(0.0, 1.0, 2.0\)"),
        (["--rtol", "0"], "wgf: `rtol` must be positive; got 0.0"),
    ],
)
def test_an_option_that_cannot_be_used_ends_with_one_line(options, text, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert re.search(text, refusal(capsys, *QUICK, *options))
    assert not list(tmp_path.iterdir())


def test_a_csv_without_a_target_ends_with_one_line(tmp_path, capsys):
    line = refusal(capsys, *QUICK, "--data", write(tmp_path))
    assert "`target` must name the column to predict where `data` is a CSV file" in line


def test_a_csv_with_an_unknown_target_ends_with_one_line(tmp_path, capsys):
    line = refusal(capsys, *QUICK, "--data", write(tmp_path), "--target", "z")
    assert re.search(r"wgf: `target` must be a column of .*, one of \['a', 'b', 'y'\]; got 'z'", line)


def test_a_csv_with_a_cell_that_is_no_number_ends_with_one_line(tmp_path, capsys):
    path = write(tmp_path)
    path.write_text(path.read_text(encoding="utf-8") + "1,2,many\n", encoding="utf-8")
    line = refusal(capsys, *QUICK, "--data", path, "--target", "y")
    assert "table.csv, line 10, column 'y' must be a finite number; got 'many'" in line


def test_a_rerun_without_a_config_ends_with_one_line(tmp_path, capsys):
    assert "`config` must be a config.json or the folder of a run; got" in refusal(capsys, "rerun", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "`config` must be readable JSON; got PATH: Expecting value: line 1 column 1 (char 0)."),
        ('{"seed": 1}', '`config` must name its experiment, as in {"experiment": "limit", ...}; got PATH without one.'),
        ('{"experiment": "voyage"}', f"PATH: `experiment` must be one of {sorted(EXPERIMENTS)}; got 'voyage'."),
        ('{"experiment": "limit", "depth": 3}', "PATH: `config` must have fields of "),
        ('{"experiment": "limit", "seed": 1.5}', "PATH: `seed` must be a whole number; got 1.5."),
        ('{"experiment": "limit", "batch": 0}', "PATH: `batch` must be a whole number of at least 1; got 0."),
    ],
)
def test_a_rerun_names_the_file_and_the_field_that_is_wrong(text, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    assert refusal(capsys, "rerun", "a.json").startswith("wgf: " + message.replace("PATH", "a.json"))
    assert names(tmp_path) == ["a.json"]


def test_a_rerun_writes_to_the_folder_that_its_file_names(ran, tmp_path):
    (tmp_path / "config.json").write_text('{"experiment": "limit", "out": "here"}', encoding="utf-8")
    cli.main(["rerun", "config.json"])
    cli.main(["rerun", "config.json", "--out", "there"])
    assert names(tmp_path) == ["config.json", "here", "there"]


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
def test_a_seed_beyond_the_keys_of_jax_is_refused_before_the_run(name, seed, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "wgf: `seed` must be a whole number" in refusal(capsys, name, "--seed", seed)
    assert names(tmp_path) == []


def test_an_option_beside_the_data_does_not_hide_other_errors(monkeypatch):
    def fail(config):
        raise RuntimeError("a fault of the program")

    monkeypatch.setitem(EXPERIMENTS, "limit", Experiment(LimitConfig, fail))
    with pytest.raises(RuntimeError, match="a fault of the program"):
        cli.main(["limit"])


@pytest.mark.parametrize("broken", ["", "/inside", "/inside/it"])
def test_a_folder_that_cannot_be_made_is_refused_before_the_run(broken, ran, tmp_path, capsys):
    """Also for root, whom no permissions stop."""
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    line = refusal(capsys, "limit", "--out", f"file{broken}")
    assert f"`out` must be a folder that can be made and written; got file{broken} (" in line
    assert not ran
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has /proc, where no folder can be made")
def test_a_folder_in_a_file_system_of_the_kernel_is_refused_before_the_run(ran, capsys):
    assert "got /proc/x ([Errno" in refusal(capsys, "limit", "--out", "/proc/x")
    assert "got /proc ([Errno" in refusal(capsys, "limit", "--out", "/proc")
    assert not ran


@pytest.mark.parametrize("file", FILES)
def test_a_folder_whose_files_cannot_be_replaced_is_refused_before_the_run(file, ran, tmp_path, capsys):
    (tmp_path / "out" / file).mkdir(parents=True)
    assert re.search(f"got out \\(.*{file}'\\)", refusal(capsys, "limit", "--out", "out"))
    assert not ran


def test_results_may_replace_those_of_an_earlier_run(ran, tmp_path):
    cli.main(["limit", "--out", "out"])
    (tmp_path / "out" / "table.txt").write_text("old", encoding="utf-8")
    cli.main(["limit", "--out", "out"])
    assert (tmp_path / "out" / "table.txt").read_text(encoding="utf-8") == TABLE + "\n"
    assert names(tmp_path / "out") == FILES


def test_without_a_place_for_the_default_folder_nothing_runs(ran, tmp_path, capsys):
    (tmp_path / "results").write_text("a file", encoding="utf-8")
    assert "`out` must be a folder that can be made and written; got results (" in refusal(capsys, "limit")
    assert not ran


def test_a_tilde_is_the_home_directory(ran, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    cli.main(["limit", "--out=~/a"])
    assert names(tmp_path / "home" / "a") == FILES
    cli.main(["rerun", "~/a", "--out", "~/b"])
    assert names(tmp_path / "home") == ["a", "b"]
    assert names(tmp_path) == ["home"]
    assert len(ran) == 2


def test_data_may_lie_in_the_home_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write(tmp_path)
    monkeypatch.chdir("/")
    folder = ["--out", tmp_path / "out"]
    assert "`target` must name the column" in refusal(capsys, *QUICK, *folder, "--data", "~/table.csv")
    assert f"got {tmp_path / 'a'} without" in refusal(capsys, "images", *folder, "--data", "cifar10", "--root", "~/a")


def test_the_home_directory_of_nobody_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for option in ("--out", "--data"):
        line = refusal(capsys, *QUICK, option, "~nobody-has-this-name/x")
        assert f"`{option[2:]}` must begin with the home directory of a user; got ~nobody-has-this-name/x" in line


def test_a_run_whose_options_are_wrong_leaves_nothing(monkeypatch, tmp_path, capsys):
    def fail(config):
        assert names(config.out) == [".lock", "config.json"]
        raise ValueError("`scale` must be positive.")

    monkeypatch.setitem(EXPERIMENTS, "limit", Experiment(LimitConfig, fail))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    for options in ([], ["--out", "a/b/c"], ["--out", "old"], ["--out", "old/new"]):
        assert refusal(capsys, "limit", *options) == "wgf: `scale` must be positive."
    assert names(tmp_path) == ["old"]
    assert names(tmp_path / "old") == []


def test_a_run_that_fails_keeps_its_options_and_what_it_has_written(monkeypatch, tmp_path):
    def fail(config):
        (config.out / "part").touch()
        raise RuntimeError

    folder = tmp_path / "a" / "b"
    monkeypatch.setitem(EXPERIMENTS, "limit", Experiment(LimitConfig, fail))
    with pytest.raises(RuntimeError):
        cli.main(["limit", "--seed", "7", "--out", str(folder)])
    assert names(folder) == ["config.json", "part"]
    assert config_from(LimitConfig, load_config(folder)[1]).seed == 7


def test_a_run_that_fails_in_an_old_folder_leaves_the_old_results(ran, monkeypatch, tmp_path):
    cli.main(["limit", "--seed", "1", "--out", "here"])
    before = (tmp_path / "here" / "config.json").read_bytes()

    def fail(config):
        raise RuntimeError

    monkeypatch.setitem(EXPERIMENTS, "limit", Experiment(LimitConfig, fail))
    with pytest.raises(RuntimeError):
        cli.main(["limit", "--seed", "2", "--out", "here", "--force"])
    assert names(tmp_path / "here") == FILES
    assert (tmp_path / "here" / "config.json").read_bytes() == before


def test_a_killed_command_says_which_run_its_folder_holds(ran, monkeypatch):
    words = []
    monkeypatch.setattr(cli, "ended_by_signals", lambda text, note: words.append(text) or contextlib.nullcontext())
    monkeypatch.setitem(EXPERIMENTS, "markov", Experiment(MarkovConfig, lambda config, parts: Stub(config), True))
    for command in ("limit", "limit", "limit --seed 2 --force", "markov --force", "markov"):
        cli.main([*command.split(), "--out", "here"])
    repeats, still = "`wgf rerun here` repeats the run.", "here still holds an earlier run."
    assert words == [repeats, repeats, still, still, "`wgf rerun here --out here` resumes the run."]


def test_results_say_where_they_come_from(ran, tmp_path):
    data = write(tmp_path)
    cli.main(["limit", "--out", "here", "--data", str(data), "--target", "y"])
    about = json.loads((tmp_path / "here" / "config.json").read_text(encoding="utf-8"))["about"]
    with np.load(tmp_path / "here" / "result.npz") as arrays:
        assert json.loads(str(arrays["about"])) == {"experiment": "limit", **about}
    assert about["versions"]["jax"] == jax.__version__
    assert about["precision"] == str(jax.numpy.zeros(()).dtype)
    assert about["device"].startswith("cpu")
    assert about["seconds"] >= 0
    data.write_text("a,b,y\n1,2,3\n", encoding="utf-8")
    cli.main(["limit", "--out", "there", "--data", str(data), "--target", "y"])
    assert (
        json.loads((tmp_path / "there" / "config.json").read_text(encoding="utf-8"))["about"]["data"] != about["data"]
    )


def test_a_run_on_a_csv_is_repeated_from_another_folder(ran, tmp_path, monkeypatch):
    data = write(tmp_path)
    options = ["limit", "--data", "table.csv", "--target", "y", "--out", "here"]
    cli.main(options)
    # It is the same run, which no folder refuses.
    cli.main(options)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    cli.main(["rerun", "../here", "--out", "../here"])
    assert [Path(config.data) for config in ran] == [Path("table.csv"), Path("table.csv"), data]


def test_a_link_in_the_results_folder_is_replaced_and_not_followed(ran, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").write_text("precious", encoding="utf-8")
    (tmp_path / "here" / "table.txt").symlink_to(tmp_path / "elsewhere")
    cli.main(["limit", "--out", "here"])
    assert (tmp_path / "elsewhere").read_text(encoding="utf-8") == "precious"
    assert (tmp_path / "here" / "table.txt").read_text(encoding="utf-8") == TABLE + "\n"


def test_where_results_cannot_be_saved_the_table_is_printed(monkeypatch, tmp_path, capsys):
    def block(config):
        (config.out / "result.npz").mkdir()
        return Stub(config)

    monkeypatch.setitem(EXPERIMENTS, "limit", Experiment(LimitConfig, block))
    with pytest.raises(SystemExit, match=f"wgf: the results could not be saved in {tmp_path}: .*result.npz"):
        cli.main(["limit", "--out", str(tmp_path)])
    assert capsys.readouterr().out == TABLE + "\n"


def test_of_many_processes_only_the_first_has_a_folder(ran, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    cli.main(["limit", "--out", "/proc/x"])
    assert len(ran) == 1
    assert capsys.readouterr().out == ""
    assert names(tmp_path) == []


def test_processes_join_before_one_of_them_makes_the_folder(ran, monkeypatch, tmp_path):
    started = []

    def start(text):
        started.append((text, names(tmp_path)))

    monkeypatch.setattr(cli, "start_processes", start)
    cli.main(["limit", "--distributed", "auto"])
    assert started == [("auto", [])]
    assert ran == [LimitConfig(distributed="auto")]


def test_a_file_name_that_is_no_text_reaches_the_table(monkeypatch, tmp_path):
    monkeypatch.setattr(Stub, "table", lambda self: "data \udcff.csv")
    monkeypatch.setitem(EXPERIMENTS, "limit", Experiment(LimitConfig, Stub))
    cli.main(["limit", "--out", str(tmp_path)])
    assert (tmp_path / "table.txt").read_text(encoding="utf-8") == "data \\udcff.csv\n"


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Commands in processes of their own, all at once: exit code, standard output and error, folder."""
    place = tmp_path_factory.mktemp("processes")

    def start(name, *, shell="", encoding="utf-8", **options):
        command = f'"{sys.executable}" "{STUBBED}" limit --out {name} {shell}'
        return subprocess.Popen(
            ["bash", "-c", f"set -o pipefail; {command}"],
            cwd=place,
            env={**ENVIRONMENT, "PYTHONIOENCODING": encoding},
            stderr=subprocess.PIPE,
            **options,
        )

    reader, writer = os.pipe()
    os.close(reader)
    started = {
        "cp1252": start("cp1252", encoding="cp1252", stdout=subprocess.PIPE),
        "full": start("full", stdout=subprocess.PIPE, shell="> /dev/full"),
        "closed": start("closed", stdout=writer),
        "head": start("head", stdout=subprocess.PIPE, shell="| head -1"),
    }
    os.close(writer)
    ended = {name: process.communicate(timeout=300) for name, process in started.items()}
    return {name: (started[name].returncode, out, told(err), place / name) for name, (out, err) in ended.items()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_ends_the_command_at_once_while_compiled_code_runs(number, endless):
    process, folder = endless[number]
    try:
        process.send_signal(number)
        _, err = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    line = f"stopped by {name}. `wgf rerun {folder.name}` repeats the run."
    assert told(err) == ["", f"wgf: {line}"]
    assert f"{line}\n" in (folder.parent / "log.txt").read_text(encoding="utf-8")
    # The file of the lock stays; the lock does not.
    assert names(folder) == [".lock", "busy", "config.json"]
    assert config_from(LimitConfig, load_config(folder)[1]).seed == ENDLESS


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """Two commands that run compiled code for ever, and their folders."""
    place = tmp_path_factory.mktemp("endless")
    command = [sys.executable, str(STUBBED), "limit", "--seed", str(ENDLESS), "--log", "log.txt", "--out"]
    started = {
        number: (
            subprocess.Popen([*command, str(number)], cwd=place, env=ENVIRONMENT, stderr=subprocess.PIPE),
            place / str(number),
        )
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    deadline = time.monotonic() + 300
    while not all((folder / "busy").exists() for _, folder in started.values()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # Compiled by now, and running.
    time.sleep(2)
    yield started
    for process, _ in started.values():
        process.kill()


def told(err):
    """The lines of standard error without those of JAX, e.g. on cards that a machine lacks."""
    return [line for line in err.decode().splitlines() if not line.startswith(("WARNING:jax", "ERROR:jax"))]


def test_characters_that_a_terminal_lacks_are_escaped(processes):
    code, out, err, folder = processes["cp1252"]
    assert (code, err) == (0, [])
    assert out.decode("cp1252").splitlines() == ["tau \\u03c4", "-" * 23, "slope 1.0 ± 0.1, R² 0.9", "results: cp1252"]
    assert names(folder) == FILES
    assert (folder / "table.txt").read_text(encoding="utf-8") == TABLE + "\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_results_are_saved_where_standard_output_is_full(processes):
    code, _, err, folder = processes["full"]
    assert code == 1
    reason = os.strerror(errno.ENOSPC)
    assert err == [f"wgf: standard output cannot be written: {reason}. The results are in full."]
    assert names(folder) == FILES


def test_a_closed_pipe_ends_the_command_quietly_with_its_results_saved(processes):
    code, _, err, folder = processes["closed"]
    assert (code, err) == (141, [])
    assert names(folder) == FILES


def test_the_first_line_alone_may_be_read(processes):
    code, out, err, folder = processes["head"]
    # The table may be written before `head` closes the pipe.
    assert code in (0, 141)
    assert (out.decode(), err) == ("tau τ\n", [])
    assert names(folder) == FILES


def test_the_help_ends_quietly_at_a_closed_pipe(monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as stop:
            cli.main(["--help"])
    assert stop.value.code == 141
    assert capsys.readouterr().err == ""


def test_results_are_saved_without_any_standard_output(ran, monkeypatch, tmp_path):
    """Python has no stream where the shell has closed it, `>&-`."""
    monkeypatch.setattr(sys, "stdout", None)
    cli.main(["limit", "--out", "here"])
    assert names(tmp_path / "here") == FILES


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
