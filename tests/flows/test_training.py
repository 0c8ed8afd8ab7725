"""A training that is kept on disk resumes bit for bit, from what is whole."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import bound, regression

import wgf
from wgf._storage.lock import locked
from wgf.flows._run import training as kept

OPTIMISER = optax.adam(1e-2)
OPTIONS = {"steps": 6, "save_every": 2, "batch": 3, "key": jax.random.key(5)}


@pytest.fixture(scope="module")
def problem():
    prompts = regression(jax.random.key(0), batch=4, examples=2)
    encoder = wgf.encoders.Perceptron(prompts.token_dim, jnp.tanh)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.5).layered(2, 3, jax.random.key(1)))
    return wgf.Objective(prompts, 1e-3), model


@pytest.fixture(scope="module")
def whole(problem, tmp_path_factory):
    """The folder of a training without a stop, and its solution."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, wgf.train(*problem, OPTIMISER, directory=folder, **OPTIONS)


def assert_same(solution, expected):
    assert eqx.tree_equal(solution, expected)


def test_its_numbers_are_those_of_a_training_in_memory(problem, whole):
    plain = wgf.train(*problem, OPTIMISER, **OPTIONS)
    np.testing.assert_allclose(whole[1].objective, plain.objective, rtol=bound(1e-12, 1e-5))
    np.testing.assert_array_equal(whole[1].steps, plain.steps)
    assert jax.tree.structure(whole[1]) == jax.tree.structure(plain)


def test_after_a_stop_the_same_call_resumes_bit_for_bit(problem, whole, tmp_path, monkeypatch):
    advance, calls = kept._advance, []

    def stops(training, carry):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return advance(training, carry)

    monkeypatch.setattr(kept, "_advance", stops)
    with pytest.raises(KeyboardInterrupt):
        wgf.train(*problem, OPTIMISER, directory=tmp_path / "run", **OPTIONS)
    assert sorted(path.name for path in (tmp_path / "run" / "saves").iterdir()) == ["0001.npz", "0002.npz"]
    assert_same(wgf.train(*problem, OPTIMISER, directory=tmp_path / "run", **OPTIONS), whole[1])
    assert len(calls) == 4, "what was saved is not computed again"


def test_the_solution_is_read_without_the_training(problem, whole):
    folder, solution = whole
    with np.load(folder / "solution.npz") as arrays:
        np.testing.assert_array_equal(arrays["objective"], solution.objective)
    like = eqx.filter_eval_shape(partial(wgf.train, **OPTIONS), *problem, OPTIMISER)
    assert_same(wgf.load(folder / "solution.npz", like), solution)


def test_more_steps_continue_a_training(problem, whole, tmp_path):
    wgf.train(*problem, OPTIMISER, directory=tmp_path, **{**OPTIONS, "steps": 2})
    assert_same(wgf.train(*problem, OPTIMISER, directory=tmp_path, **OPTIONS), whole[1])


def zeroed(path):
    """Another number in place of the first array, as well formed as before."""
    with np.load(path) as opened:
        arrays = dict(opened)
    arrays["0000"] = np.zeros_like(arrays["0000"])
    np.savez(path, **arrays)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "flipped": lambda path: path.write_bytes(bytes(b ^ (1 << (i == 700)) for i, b in enumerate(path.read_bytes()))),
    "zeroed": zeroed,
    "another save": lambda path: path.write_bytes(path.with_name("0003.npz").read_bytes()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_save_is_computed_anew(problem, whole, tmp_path, damage):
    wgf.train(*problem, OPTIMISER, directory=tmp_path, **OPTIONS)
    path = tmp_path / "saves" / "0002.npz"
    DAMAGES[damage](path)
    with pytest.warns(
        UserWarning, match=r"0002.npz is missing, truncated or has other contents.*resumes from the save"
    ):
        solution = wgf.train(*problem, OPTIMISER, directory=tmp_path, **OPTIONS)
    assert_same(solution, whole[1])
    assert_same(wgf.train(*problem, OPTIMISER, directory=tmp_path, **OPTIONS), whole[1])


def test_another_problem_is_refused(problem, whole):
    folder, _ = whole
    with pytest.raises(ValueError, match="`directory` must be new, or hold a run of the same problem"):
        wgf.train(*problem, optax.adam(2e-2), directory=folder, **OPTIONS)
    with pytest.raises(ValueError, match=r"holds one whose `save_every` is .*2.*, not .*3"):
        wgf.train(*problem, OPTIMISER, directory=folder, **{**OPTIONS, "save_every": 3})


def test_a_folder_in_use_is_refused(problem, whole):
    folder, _ = whole
    with locked(folder), pytest.raises(ValueError, match="`directory` must be a folder that no other process uses"):
        wgf.train(*problem, OPTIMISER, directory=folder, **OPTIONS)


def test_a_folder_that_cannot_be_made_is_refused(problem, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`directory` must be a folder that can be made and written"):
        wgf.train(*problem, OPTIMISER, directory=tmp_path / "file" / "run", **OPTIONS)


def test_several_processes_are_refused(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="`directory` of a training needs one process; got 2"):
        wgf.train(*problem, OPTIMISER, directory=tmp_path, **OPTIONS)
