import codecs
import dataclasses
import json
import re
from pathlib import Path

import pytest

from wgf.experiments import (
    EXPERIMENTS,
    HomogeneityConfig,
    ImagesConfig,
    LimitConfig,
    MarkovConfig,
    OptimisersConfig,
    config_from,
    load_config,
)
from wgf.experiments._config_file import save_config


def changed(config):
    """The config with a value other than the default in each of these fields."""
    values = {"root": Path("folder"), "images": 7, "data": "a.csv", "target": "y", "mesh": "prompts=2"}
    names = {field.name for field in dataclasses.fields(config)} & set(values)
    return dataclasses.replace(config, **{n: values[n] for n in names if not isinstance(getattr(config, n), tuple)})


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("quick", [False, True])
def test_a_config_comes_back_from_its_file(name, quick, tmp_path):
    kind = EXPERIMENTS[name].config
    config = kind.quick_default() if quick else kind()
    for one in [config, changed(config)] if name != "images" else [config, dataclasses.replace(config, root=Path("x"))]:
        save_config(tmp_path, name, one)
        for path in (tmp_path, tmp_path / "config.json"):
            found, fields = load_config(path)
            assert (found, config_from(kind, fields)) == (name, one)


def test_paths_to_what_exists_hold_in_every_working_folder(tmp_path, monkeypatch):
    (tmp_path / "from" / "images").mkdir(parents=True)
    (tmp_path / "from" / "table.csv").write_text("a,y\n1,2\n", encoding="utf-8")
    (tmp_path / "to").mkdir()
    monkeypatch.chdir(tmp_path / "from")
    save_config(tmp_path, "limit", LimitConfig(data="table.csv", target="y"))
    monkeypatch.chdir(tmp_path / "to")
    found = config_from(LimitConfig, load_config(tmp_path)[1])
    assert found == LimitConfig(data=str(tmp_path / "from" / "table.csv"), target="y")
    monkeypatch.chdir(tmp_path / "from")
    save_config(tmp_path, "images", ImagesConfig(data="cifar10", root=Path("images")))
    monkeypatch.chdir(tmp_path / "to")
    found = config_from(ImagesConfig, load_config(tmp_path)[1])
    assert found == ImagesConfig(data="cifar10", root=tmp_path / "from" / "images")


@pytest.mark.parametrize("data", ["synthetic", "diabetes", "absent.csv", "~nobody-has-this-name/x", "a\0b"])
def test_names_of_data_and_paths_to_nothing_stay_as_they_are(data, tmp_path, monkeypatch):
    for name in ("synthetic", "diabetes"):
        (tmp_path / name).write_text("a,y\n1,2\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    save_config(tmp_path, "limit", LimitConfig(data=data))
    assert config_from(LimitConfig, load_config(tmp_path)[1]) == LimitConfig(data=data)


def test_the_folder_of_a_run_is_not_part_of_its_saved_config(tmp_path):
    save_config(tmp_path, "limit", LimitConfig(out=tmp_path))
    assert config_from(LimitConfig, load_config(tmp_path)[1]).out is None


def test_a_partial_config_takes_the_defaults():
    assert config_from(LimitConfig, {"seed": 7}) == LimitConfig(seed=7)
    assert config_from(LimitConfig, {"seed": 7, "quick": False}) == LimitConfig(seed=7)


def test_a_partial_config_of_a_quick_run_takes_the_quick_defaults():
    quick = LimitConfig.quick_default()
    assert config_from(LimitConfig, {"seed": 7, "quick": True}) == dataclasses.replace(quick, seed=7)


def test_a_config_may_name_its_folder():
    assert config_from(LimitConfig, {"out": "a/b"}) == LimitConfig(out=Path("a/b"))


def test_whole_numbers_are_numbers():
    found = config_from(LimitConfig, {"taus": [0, 1, 2.5], "rtol": 1})
    assert found == LimitConfig(taus=(0.0, 1.0, 2.5), rtol=1.0)
    assert all(type(number) is float for number in (*found.taus, found.rtol))


def test_a_config_with_an_unknown_field_is_refused():
    with pytest.raises(ValueError, match=r"`config` must have fields of .*'batch'.*; got the unknown \['depth'\]"):
        config_from(LimitConfig, {"depth": 3, "seed": 1})


@pytest.mark.parametrize(
    ("kind", "field", "text", "message"),
    [
        (LimitConfig, "sampling", '"Sobol"', '`sampling` must be one of "pairs", "sobol", "independent"; got "Sobol".'),
        (LimitConfig, "sampling", "2", '`sampling` must be one of "pairs", "sobol", "independent"; got 2.'),
        (LimitConfig, "sampling", "[]", '`sampling` must be one of "pairs", "sobol", "independent"; got [].'),
        (ImagesConfig, "data", '"mnist"', '`data` must be one of "digits", "cifar10"; got "mnist".'),
        (
            LimitConfig,
            "sizes",
            "[[2, 4, 8]]",
            "`sizes` must be [[a whole number, a whole number], ...]; got [2, 4, 8] as `sizes[0]`.",
        ),
        (
            LimitConfig,
            "sizes",
            "[[2, 4], [2, 4.5]]",
            "`sizes` must be [[a whole number, a whole number], ...]; got 4.5 as `sizes[1][1]`.",
        ),
        (
            LimitConfig,
            "sizes",
            "[2, 4]",
            "`sizes` must be [[a whole number, a whole number], ...]; got 2 as `sizes[0]`.",
        ),
        (LimitConfig, "sizes", "4", "`sizes` must be [[a whole number, a whole number], ...]; got 4."),
        (LimitConfig, "sizes", "{}", "`sizes` must be [[a whole number, a whole number], ...]; got {}."),
        (LimitConfig, "taus", '[0, "1"]', '`taus` must be [a number, ...]; got "1" as `taus[1]`.'),
        (LimitConfig, "taus", "[0, null]", "`taus` must be [a number, ...]; got null as `taus[1]`."),
        (LimitConfig, "batch", '"4"', '`batch` must be a whole number; got "4".'),
        (LimitConfig, "batch", "4.0", "`batch` must be a whole number; got 4.0."),
        (LimitConfig, "batch", "true", "`batch` must be a whole number; got true."),
        (LimitConfig, "batch", "null", "`batch` must be a whole number; got null."),
        (LimitConfig, "rtol", "false", "`rtol` must be a number; got false."),
        (LimitConfig, "rtol", "1" + "0" * 400, "`rtol` must be a number; got 1" + "0" * 56 + "...."),
        (LimitConfig, "quick", "1", "`quick` must be true or false; got 1."),
        (LimitConfig, "data", "3", "`data` must be a string; got 3."),
        (LimitConfig, "target", "3", "`target` must be a string or null; got 3."),
        (LimitConfig, "out", "3", "`out` must be a string or null; got 3."),
        (ImagesConfig, "images", '"all"', '`images` must be a whole number or null; got "all".'),
        (MarkovConfig, "hard", "[0.1]", "`hard` must be [a number, a number]; got [0.1]."),
        (MarkovConfig, "chains", "[0.1, 0.2]", "`chains` must be [[a number, a number], ...]; got 0.1 as `chains[0]`."),
        (OptimisersConfig, "betas", "0.9", "`betas` must be [a number, a number]; got 0.9."),
        (HomogeneityConfig, "encoders", '"head softmax"', '`encoders` must be [a string, ...]; got "head softmax".'),
    ],
)
def test_a_field_of_the_wrong_type_is_named(kind, field, text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        config_from(kind, {field: json.loads(text)})


@pytest.mark.parametrize(
    "encoded",
    [
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-32"),
        lambda text: text.replace("\n", "\r\n").encode(),
    ],
    ids=["UTF-8 with a mark", "UTF-16", "UTF-32", "lines of Windows"],
)
def test_a_file_in_any_unicode_encoding_is_read(encoded, tmp_path):
    config = LimitConfig(data="Zürich.csv", target="τ", seed=3)
    save_config(tmp_path, "limit", config)
    path = tmp_path / "config.json"
    text = json.dumps(json.loads(path.read_text(encoding="utf-8")), ensure_ascii=False, indent=1)
    path.write_bytes(encoded(text))
    name, fields = load_config(tmp_path)
    assert (name, config_from(LimitConfig, fields)) == ("limit", config)


def test_a_config_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`config` must be a config.json or the folder of a run; got .*config.json"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    "text", ["{}", "[]", '"limit"', "3", "null", '{"experiment": null}', '{"experiment": ["limit"]}']
)
def test_a_config_without_an_experiment_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"`config` must name its experiment, as in .*; got .*config.json without"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"not json", "Expecting value"),
        (b'{"experiment": "limit",}', "double quotes|trailing comma"),
        (b'{"experiment": "limit", "data": "\xff"}', "invalid start byte"),
        (b"PK\x03\x04\x00\x00", "config.json: "),
        (b"[" * 100_000, "config.json: "),
        (b'{"seed": 1' + b"0" * 5000 + b"}", "4300 digits"),
        (b'{"experiment": "limit", "seed": 1, "seed": 2}', r"\['seed'\] more than once"),
    ],
    ids=["empty", "words", "comma", "latin-1", "binary", "deep", "long", "twice"],
)
def test_a_file_that_is_no_json_is_refused(content, reason, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"`config` must be readable JSON; got .*({reason})"):
        load_config(tmp_path)
