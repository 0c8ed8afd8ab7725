"""Solutions in files: what comes back, and what is refused."""

import io
import json
import pickle
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, scalar_problem

import wgf
from wgf._storage import storage as _storage
from wgf.analysis import Distances, Gap, Noise, Replicates
from wgf.flows import RESULTS, TrainSolution

MODEL = wgf.Transformer(Matrix(1), wgf.measures.Layered(np.linspace(-1, 1, 4).reshape(2, 2, 1, 1)))
PROBLEM = scalar_problem(1e-3), MODEL, np.linspace(0, 3, 4)
ROW = jnp.arange(3.0)


@pytest.fixture(scope="module")
def flow():
    """A solution of the structure of the problem's, with other numbers: nothing is solved."""
    like = eqx.filter_eval_shape(wgf.flow, *PROBLEM)
    numbers = jax.tree.map(
        lambda leaf: (
            jnp.arange(leaf.size).reshape(leaf.shape).astype(leaf.dtype) + 1
            if isinstance(leaf, jax.ShapeDtypeStruct)
            else leaf
        ),
        like,
    )
    result = jax.tree.map(jnp.asarray, RESULTS.successful)
    return eqx.tree_at(lambda s: (s.reached, s.result), numbers, (jnp.ones(4, bool), result))


@pytest.fixture(scope="module")
def saved(flow, tmp_path_factory):
    """The file of a flow."""
    path = tmp_path_factory.mktemp("saved") / "flow.npz"
    wgf.save(path, flow)
    return path


@pytest.fixture
def objects(flow):
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]) if eqx.is_array(leaf) else leaf, flow)
    lost = eqx.tree_at(lambda s: (s.risk, s.result), flow, (flow.risk.at[1:].set(jnp.nan), RESULTS.stalled))
    return {
        "flow": flow,
        "lost": lost,
        "train": TrainSolution(jnp.arange(3), MODEL, ROW, ROW, ROW, ROW[:, None], ROW[1:2], RESULTS.successful),
        "replicates": Replicates(flow, stacked),
        "gap": Gap(ROW, ROW, ROW, ROW, Distances(*[ROW] * 4, ROW > 0), Noise(4, *[ROW] * 7), None),
        "model": MODEL,
    }


def equal(first, second):
    """Whether two trees have equal structures and arrays of one type, NaN included."""
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert jnp.result_type(a) == jnp.result_type(b)
        assert isinstance(a, np.ndarray) == isinstance(b, np.ndarray)
        np.testing.assert_array_equal(a, b)
    return True


@pytest.mark.parametrize("name", ["flow", "lost", "train", "replicates", "gap", "model"])
def test_what_was_saved_comes_back(objects, name, tmp_path):
    wgf.save(tmp_path / "file", objects[name])
    zeros = {np.ndarray: np.zeros_like}
    like = jax.tree.map(
        lambda leaf: zeros.get(type(leaf), jnp.zeros_like)(leaf) if eqx.is_array(leaf) else leaf, objects[name]
    )
    assert equal(wgf.load(str(tmp_path / "file"), like), objects[name])


def test_nothing_is_solved_for_the_structure_of_a_flow(flow, saved):
    like = eqx.filter_eval_shape(wgf.flow, *PROBLEM)
    assert equal(wgf.load(saved, like), flow)


def test_numpy_reads_the_arrays_by_their_paths(flow, saved):
    with np.load(saved, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["risk"], flow.risk)
        np.testing.assert_array_equal(arrays["models.measure.weights"], flow.models.measure.weights)
        assert arrays["stats['num_steps']"] == flow.stats["num_steps"]
        assert json.loads(arrays["header.json"].item())["versions"]["wgf"] == wgf.__version__


def test_keys_short_floats_and_arrays_of_numpy_come_back(tmp_path):
    class Odd(eqx.Module):
        key: jax.Array
        short: jax.Array
        host: np.ndarray
        text: str

    odd = Odd(jax.random.key(3), jnp.arange(3, dtype=jnp.bfloat16), np.arange(2, dtype=np.int8), "a")
    wgf.save(tmp_path / "odd", odd)
    found = wgf.load(tmp_path / "odd", odd)
    assert (found.key, found.short.dtype, found.host.dtype) == (odd.key, jnp.bfloat16, np.int8)
    np.testing.assert_array_equal(found.short, odd.short)
    assert isinstance(found.host, np.ndarray)


def test_arrays_come_back_onto_the_mesh_of_like(flow, saved):
    mesh = jax.make_mesh((1,), ("particles",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    like = eqx.tree_at(lambda s: s.risk, flow, jax.device_put(flow.risk, sharding))
    assert wgf.load(saved, like).risk.sharding == sharding


OTHERS = {
    "another class": (lambda s: MODEL, "its class is Transformer, that of the file FlowSolution"),
    "another width": (
        lambda s: eqx.tree_at(lambda s: s.models.measure.weights, s, np.ones((4, 2, 3))),
        r"its models.measure.weights is float64\[4,2,3\], that of the file float\d\d\[4,2,2\]",
    ),
    "another type": (
        lambda s: eqx.tree_at(lambda s: s.risk, s, s.risk.astype(jnp.float16)),
        r"its risk is float16\[4\], that of the file float\d\d\[4\]",
    ),
    "another number": (
        lambda s: eqx.tree_at(lambda s: s.models.encoder, s, Matrix(2)),
        "its models.encoder.token_dim is 2, that of the file 1",
    ),
    "tracers": (
        lambda s: eqx.tree_at(lambda s: s.models.tracers, s, (MODEL.measure,), is_leaf=lambda x: isinstance(x, tuple)),
        "its models.tracers is tuple of 1, that of the file tuple of 0",
    ),
    "less": (lambda s: eqx.tree_at(lambda s: s.stats, s, {}), "its stats is dict of 0, that of the file dict of 3"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_structure_is_refused(flow, saved, name):
    change, message = OTHERS[name]
    with pytest.raises(ValueError, match=f"`like` must have the structure of {re.escape(str(saved))}; {message}"):
        wgf.load(saved, change(flow))


def of_arrays(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def contents(saved):
    with np.load(saved) as archive:
        return dict(archive)


DAMAGED = {
    "empty": lambda saved: b"",
    "text": lambda saved: b"risk: 0.1",
    "half": lambda saved: saved.read_bytes()[: saved.stat().st_size // 2],
    "without its end": lambda saved: saved.read_bytes()[:-1],
    "with a changed byte": lambda saved: saved.read_bytes()[:3000] + b"?" + saved.read_bytes()[3001:],
    "a pickle": lambda saved: pickle.dumps({"risk": [0.1]}),
    "an array": lambda saved: saved.read_bytes()[saved.read_bytes().index(b"\x93NUMPY") :],
    "a pickle in an archive": lambda saved: of_arrays(**contents(saved) | {"risk": np.array([{}])}),
    "without a header": lambda saved: of_arrays(risk=ROW),
    "without an array": lambda saved: of_arrays(**{k: v for k, v in contents(saved).items() if k != "risk"}),
    "with another shape": lambda saved: of_arrays(**contents(saved) | {"risk": ROW}),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named(flow, saved, tmp_path, name):
    file = tmp_path / "file"
    file.write_bytes(DAMAGED[name](saved))
    message = f"`path` must be a file that wgf.save wrote; {re.escape(str(file))} is missing, damaged or of another k"
    with pytest.raises(ValueError, match=message):
        wgf.load(file, flow)
    file.unlink()
    with pytest.raises(ValueError, match=message):
        wgf.load(file, flow)


def with_header(saved, **changes):
    """The file with another header."""
    arrays = contents(saved)
    header = json.loads(arrays["header.json"].item()) | changes
    return of_arrays(**arrays | {"header.json": np.asarray(json.dumps(header))})


def test_a_file_of_a_later_release_is_refused(flow, saved, tmp_path):
    (tmp_path / "later").write_bytes(with_header(saved, format=2))
    with pytest.raises(ValueError, match=r"`path` must be a file of this release .* or an earlier one; .*later is of"):
        wgf.load(tmp_path / "later", flow)


def test_results_keep_their_meaning_if_a_release_numbers_them_anew(flow, saved, tmp_path):
    (tmp_path / "a").write_bytes(with_header(saved, codes={"result._value": ["stalled", "successful"]}))
    assert wgf.load(tmp_path / "a", flow).result == RESULTS.stalled
    (tmp_path / "b").write_bytes(with_header(saved, codes={"result._value": ["melted"]}))
    with pytest.raises(ValueError, match=r"`path` must hold codes that this release knows; .*b holds melted"):
        wgf.load(tmp_path / "b", flow)


def test_links_and_folders_are_refused(flow, tmp_path):
    kept = tmp_path / "kept"
    kept.write_bytes(b"kept")
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    for name, kind in (("link", "link"), ("broken", "link"), (".", "folder")):
        with pytest.raises(ValueError, match=f"`path` must be a new path or a file; .* is a {kind}"):
            wgf.save(tmp_path / name, flow)
    with pytest.raises(ValueError, match=r"`path` must be a file that can be written; .*x cannot"):
        wgf.save(tmp_path / "none" / "x", flow)
    assert kept.read_bytes() == b"kept"


def test_a_file_is_replaced_once_the_new_one_is_complete(flow, saved, tmp_path, monkeypatch):
    file = tmp_path / "flow.npz"
    wgf.save(file, MODEL)
    wgf.save(file, flow)
    assert contents(file).keys() == contents(saved).keys()

    def fail(part, **_):
        part.write(b"a part")
        raise KeyboardInterrupt

    monkeypatch.setattr(_storage.np, "savez", fail)
    with pytest.raises(KeyboardInterrupt):
        wgf.save(file, MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["flow.npz"]
    assert equal(wgf.load(file, flow), flow)


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_refused(flow, tmp_path):
    with pytest.raises(ValueError, match="`module` must be a solution or another Equinox module; got 3"):
        wgf.save(tmp_path / "x", 3)
    with pytest.raises(ValueError, match="`like` must be a module of the structure of the file; got the class FlowSol"):
        wgf.load(tmp_path / "x", type(flow))
    with pytest.raises(ValueError, match="`module` must hold known numbers; got traced ones"):
        eqx.filter_jit(lambda s: wgf.save(tmp_path / "x", s))(flow)
