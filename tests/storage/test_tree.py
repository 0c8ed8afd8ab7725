import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import wgf
from wgf._backend.compat import members_of
from wgf._storage.tree import entries_of, read_header, read_tree, write_tree
from wgf.analysis import LinearRate, Lipschitz
from wgf.experiments.residual import Condition, Runs
from wgf.flows import RESULTS


def there_and_back(tree, folder):
    write_tree(folder / "tree.npz", tree, {})
    return read_tree(folder / "tree.npz")


@pytest.mark.parametrize(
    "tree",
    [
        None,
        True,
        3,
        0.1,
        float("inf"),
        "τ",
        (),
        [1, (2.0, None)],
        {(2, 8): "a tuple as the key", "b": {}},
        LinearRate(1.0, 0.5, 3.0, 4.0, (2, 5)),
        Lipschitz(1.5, -0.25),
        Path("a") / "b",
        jnp.tanh,
        wgf.Transformer,
        diffrax.Tsit5(),
    ],
    # A function prints with its address, which differs between the processes of a run of the tests.
    ids=lambda tree: getattr(tree, "__name__", str(tree)),
)
def test_values_come_back_as_they_were(tree, tmp_path):
    found = there_and_back(tree, tmp_path)
    assert found == tree
    assert type(found) is type(tree)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3, dtype=np.int16),
        np.array(["x", "yz"]),
        np.array([[True], [False]]),
        np.array([np.nan, -0.0]),
        np.float32(0.1),
        jnp.arange(3.0),
        jnp.array(True),
    ],
    ids=str,
)
def test_arrays_come_back_bit_for_bit_with_their_types(array, tmp_path):
    found = there_and_back([array], tmp_path)[0]
    assert isinstance(found, jax.Array) == isinstance(array, jax.Array)
    assert isinstance(found, np.generic) == isinstance(array, np.generic)
    assert found.dtype == array.dtype
    assert np.asarray(found).tobytes() == np.asarray(array).tobytes()


def test_random_keys_come_back(tmp_path):
    key = jax.random.key(7, impl="rbg")
    assert there_and_back({"key": key}, tmp_path)["key"] == key


def test_models_come_back_with_their_functions(tmp_path):
    prompts = wgf.prompts.linear_regression(jax.random.key(0), batch=2, examples=2, dim=1)
    encoder = wgf.encoders.Average(
        wgf.encoders.SoftmaxAttention(prompts.token_dim, key_dim=1),
        wgf.encoders.Perceptron(prompts.token_dim, jnp.tanh),
    )
    law = wgf.measures.Gaussian(encoder, 0.7)
    limit = wgf.AveragedODE(encoder, law.staged(2, jax.random.key(1), steps=1))
    found = there_and_back((wgf.Objective(prompts), limit), tmp_path)
    assert eqx.tree_equal(found, (wgf.Objective(prompts), limit))
    assert found[1].encoder.h.activation is jnp.tanh


def test_a_solution_comes_back(tmp_path):
    prompts = wgf.prompts.linear_regression(jax.random.key(0), batch=2, examples=2, dim=1)
    encoder = wgf.encoders.Perceptron(prompts.token_dim)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(1, 2, jax.random.key(1)))
    solution = wgf.flow(wgf.Objective(prompts), model, [0.0, 0.1])
    found = there_and_back(solution, tmp_path)
    assert eqx.tree_equal(found, solution)
    assert repr(found) == repr(solution)
    assert RESULTS[found.result] == "successful"


def test_codes_keep_their_meaning_in_a_release_that_numbers_them_anew(tmp_path, monkeypatch):
    file = tmp_path / "tree.npz"
    write_tree(file, RESULTS.stalled, {})
    monkeypatch.setattr("wgf._storage.tree.members_of", lambda _: members_of(RESULTS)[::-1])
    code = np.asarray(read_tree(file)._value)
    assert members_of(RESULTS)[::-1][code] == "stalled"


def test_the_header_is_read_alone(tmp_path):
    write_tree(tmp_path / "a.npz", np.zeros(3), {"options": {"seed": 1, "sizes": [[1, 2]]}})
    assert read_header(tmp_path / "a.npz") == {"options": {"seed": 1, "sizes": [[1, 2]]}}


def test_a_tree_shares_its_file_with_other_entries(tmp_path):
    file = tmp_path / "shared.npz"
    tree = {"a": np.arange(3), "b": (jnp.tanh, np.arange(2.0))}
    np.savez(file, array0=np.zeros(1), about='{"number": 1}', **entries_of(tree, "folder/"))
    found = read_tree(file, "folder/")
    assert eqx.tree_equal(found, tree)
    assert read_header(file, "about") == {"number": 1}
    with pytest.raises(ValueError, match="is missing, damaged or of another release"):
        read_tree(file)


class Own(NamedTuple):
    """Of no package that a file may name."""

    number: int


@pytest.mark.parametrize(
    "part",
    [lambda x: x, Own(1), object(), b"bytes", np.array([object()]), jnp.zeros(2, jnp.bfloat16)],
    ids=["lambda", "own class", "object", "bytes", "array of objects", "bfloat16"],
)
def test_what_a_file_cannot_hold_is_refused_and_leaves_no_file(part, tmp_path):
    with pytest.raises(TypeError, match="cannot be kept"):
        write_tree(tmp_path / "tree.npz", {"a": [part]}, {})
    assert list(tmp_path.iterdir()) == []


def write_by_hand(file, node):
    np.savez(file, **{"header.json": "{}", "tree.json": json.dumps(node)})


@pytest.mark.parametrize(
    "node",
    [
        {"name": "os:system"},
        {"name": "wgf.nowhere:f"},
        {"name": "wgf.flows:flow.nothing"},
        {"class": "subprocess:Popen", "fields": {}},
        {"fields": {"nonsense": 1}, "class": "wgf.analysis._linear_rate:LinearRate"},
        {"fields": {}, "class": "wgf.flows:flow"},
        {"numpy": "absent"},
        {"unknown": 1},
    ],
    ids=json.dumps,
)
def test_a_file_that_names_something_else_is_refused(node, tmp_path):
    write_by_hand(tmp_path / "tree.npz", node)
    with pytest.raises(ValueError, match=r"tree\.npz is missing, damaged or of another release"):
        read_tree(tmp_path / "tree.npz")


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "text"])
def test_a_damaged_file_is_refused(damage, tmp_path):
    file = tmp_path / "tree.npz"
    write_tree(file, np.arange(1000), {})
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes({"cut": content[:-100], "flipped": content, "text": b"text", "missing": b""}[damage])
    if damage == "missing":
        file.unlink()
    with pytest.raises(ValueError, match=r"tree\.npz is missing, damaged or of another release"):
        read_tree(file)


def test_numbers_that_this_precision_lacks_are_refused(tmp_path):
    with jax.enable_x64(True):
        write_tree(tmp_path / "tree.npz", jnp.zeros(2, jnp.float64), {})
    with jax.enable_x64(False), pytest.raises(ValueError, match="is missing, damaged or of another release"):
        read_tree(tmp_path / "tree.npz")


def test_fields_that_are_computed_once_are_not_in_the_file(tmp_path):
    runs = Runs(Condition(True, 3, 1.0, 1.0), *(np.ones((1, 4)) for _ in range(4)), *(np.ones((1, 4, 1)),) * 2)
    runs.__dict__["fits"] = "computed"
    found = there_and_back(runs, tmp_path)
    assert set(vars(found)) == {field.name for field in dataclasses.fields(Runs)}
