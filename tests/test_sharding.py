"""Prompts and particles over many devices, and over two processes: the numbers of one device, and nothing moved."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

import wgf
from wgf.sharding._sharding import _check_divides

SCRIPT = Path(__file__).parent / "sharded.py"


def start(mesh, results, directory="-", devices=1, processes=None):
    """Run the program with so many simulated devices."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    environment = os.environ | {"XLA_FLAGS": flags}
    command = [sys.executable, SCRIPT, mesh, results, directory, *([processes] if processes else [])]
    return subprocess.Popen(
        list(map(str, command)), env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(*programs):
    """Wait for programs, and fail with what they said."""
    for program in programs:
        said, _ = program.communicate(timeout=500)
        assert program.returncode == 0, said[-3000:]


def assert_close(ours, theirs, bound=1e-5):
    for name in theirs:
        if not name.startswith(("moves", "control", "loops", "steps")):
            error = np.max(np.abs(ours[name] - theirs[name])) / np.max(np.abs(theirs[name]))
            assert error <= bound, (name, error)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("alone") / "one.npz"
    finish(start("prompts=1", path))
    return dict(np.load(path))


def check_four_devices(mesh, alone, tmp_path):
    """Four devices give the numbers of one, and move no particles."""
    finish(start(mesh, tmp_path / "four.npz", devices=4))
    four = dict(np.load(tmp_path / "four.npz"))
    assert_close(four, alone)
    assert not [name for name in four if name.startswith("moves")]
    # Devices that share particles add up once a layer, or once a stage of a step; those that share prompts alone when
    # all layers are done. Without the mesh in context they do in every tile of a layer.
    expected = [0, 0, 3] if "particles=1" in mesh else [1, 2, 3]
    assert [int(four[f"loops{i}"]) for i in range(3)] == expected
    assert "particles=1" in mesh or [name for name in four if name.startswith("control")]


@pytest.mark.slow
def test_four_devices_give_the_numbers_of_one(alone, tmp_path):
    check_four_devices("prompts=2,particles=2", alone, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["prompts=4,particles=1", "particles=4"])
def test_one_axis_alone(mesh, alone, tmp_path):
    check_four_devices(mesh, alone, tmp_path)


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(alone, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    parts = [f"127.0.0.1:{port},2,{rank}" for rank in range(2)]
    finish(*(start("prompts=2,particles=2", tmp_path / "two.npz", devices=2, processes=part) for part in parts))
    assert_close(dict(np.load(tmp_path / "two.npz")), alone)


@pytest.mark.slow
def test_a_run_begun_on_four_devices_goes_on_on_two_and_one(tmp_path):
    steps = []
    for devices, mesh in ((4, "prompts=2,particles=2"), (2, "prompts=1,particles=2"), (1, "prompts=1")):
        finish(start(mesh, tmp_path / f"{devices}.npz", tmp_path / "run", devices=devices))
        steps.append(int(np.load(tmp_path / f"{devices}.npz")["steps0"]))
    assert 0 < steps[0] < steps[1] < steps[2]
    finish(start("prompts=1", tmp_path / "whole.npz", tmp_path / "other"))
    assert_close(dict(np.load(tmp_path / "1.npz")), dict(np.load(tmp_path / "whole.npz")))


@pytest.mark.slow
def test_the_main_job_on_a_mesh(tmp_path):
    """In double precision: in single, rounding moves the steps of adaptive flows, and these the outputs by 1e-5."""

    def limit(out, *options, devices=1):
        flags = f"--xla_force_host_platform_device_count={devices}"
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_X64": "1"}
        command = [sys.executable, "-m", "wgf", "limit", "--quick", "--out", tmp_path / out, *options]
        job = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=500)
        assert job.returncode == 0, job.stderr[-3000:]
        return np.load(tmp_path / out / "result.npz")

    alone, spread = limit("alone"), limit("spread", "--mesh", "prompts=2,particles=2", devices=4)
    for name in (
        "limit_objective",
        "limit_outputs",
        "finite_objective",
        "finite_outputs",
        "limit_particles",
        "gap_coupling",
        "gap_gelbrich",
    ):
        np.testing.assert_allclose(spread[name], alone[name], atol=1e-8 * np.abs(alone[name]).max(), err_msg=name)
    # To the threshold that Sinkhorn's iterations stop at.
    for name in ("gap_sinkhorn", "noise_sinkhorn"):
        np.testing.assert_allclose(spread[name], alone[name], rtol=1e-5, err_msg=name)


def test_one_device_is_a_mesh_too(key):
    prompts = wgf.prompts.linear_regression(key, batch=4, examples=3, dim=1)
    placed = wgf.sharding.shard(prompts, wgf.sharding.mesh(devices=jax.devices()[:1]))
    sharding = placed.tokens.sharding
    assert isinstance(sharding, jax.sharding.NamedSharding)
    assert set(sharding.mesh.shape) == {"prompts", "particles"}
    home = wgf.sharding.gather(placed)
    np.testing.assert_array_equal(home.tokens, prompts.tokens)


def test_shapes_get_the_places_of_their_arrays(key):
    """So that a program can be compiled for devices that are not there."""

    def problem():
        prompts = wgf.prompts.linear_regression(key, batch=4, examples=3, dim=1)
        encoder = wgf.encoders.Perceptron(prompts.token_dim, jax.numpy.tanh)
        model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder).layered(2, 4, key))
        return wgf.Objective(prompts), model

    mesh = wgf.sharding.mesh(devices=jax.devices()[:1])
    arrays = [leaf for leaf in jax.tree.leaves(wgf.sharding.shard(problem(), mesh)) if eqx.is_array(leaf)]
    placed = jax.tree.leaves(wgf.sharding.shard(eqx.filter_eval_shape(problem), mesh))
    shapes = [leaf for leaf in placed if isinstance(leaf, jax.ShapeDtypeStruct)]
    assert [(leaf.shape, leaf.dtype, leaf.sharding) for leaf in shapes] == [
        (leaf.shape, leaf.dtype, leaf.sharding) for leaf in arrays
    ]
    assert {("prompts",), (None, "particles")} <= {tuple(leaf.sharding.spec) for leaf in shapes}


def test_processes_that_have_joined_do_not_join_again(monkeypatch):
    joined = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: bool(joined))
    monkeypatch.setattr(jax.distributed, "initialize", lambda *address, **numbers: joined.append((*address, numbers)))
    for _ in range(2):
        wgf.sharding.start_processes("localhost:1,2,0")
    wgf.sharding.start_processes("auto")
    assert joined == [("localhost:1", {"num_processes": 2, "process_id": 0})]


def test_errors_name_the_rule():
    with pytest.raises(ValueError, match=r"`prompts` x `particles` must be the number of devices, 1; got 4 x 2"):
        wgf.sharding.mesh(prompts=4, particles=2, devices=jax.devices()[:1])
    with pytest.raises(ValueError, match="`particles` must be"):
        wgf.sharding.mesh(particles=0)
    for text in ("prompts=a", "layers=2", "4", "prompts=1.5"):
        with pytest.raises(ValueError, match="`mesh` must be of the form prompts=4,particles=2; got"):
            wgf.sharding.parse_mesh(text)
    for text in ("here", "localhost:1", "localhost,2,0", "localhost:1,two,0"):
        with pytest.raises(ValueError, match="`distributed` must be auto or ADDRESS:PORT,PROCESSES,ID; got"):
            wgf.sharding.start_processes(text)
    with pytest.raises(ValueError, match="`prompts` must be a multiple of the mesh's 3 parts, to be cut evenly; got 4"):
        _check_divides("prompts", size=4, parts=3)
