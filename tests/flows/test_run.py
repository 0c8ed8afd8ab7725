"""The driver: the flow in parts, bit for bit; stops, goes on, and says why it failed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, bound, in_float64, regression

import wgf
from wgf.flows import RESULTS
from wgf.flows._run.interrupt import Interrupt

TAUS = np.linspace(0.0, 8.0, 9)


class Point(eqx.Module):
    """All that moves."""

    x: jnp.ndarray


class Keyed(eqx.Module):
    """What moves, and a random key."""

    x: jnp.ndarray
    key: jax.Array


def bowl(point):
    """Anisotropic and not quadratic, so that steps differ."""
    return jnp.sum(jnp.array([0.3, 1.0, 4.0]) * point.x**2) / 2 + jnp.sum(point.x**4)


def start():
    return Point(jnp.array([1.0, -1.5, 0.7]))


def assert_same(ours, theirs):
    """Every array of two solutions, bit for bit."""
    for (path, a), (_, b) in zip(
        *(jax.tree_util.tree_leaves_with_path(eqx.tree_at(lambda s: s.stats, s, None)) for s in (ours, theirs)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))
    for name in ("num_steps", "num_accepted_steps", "num_rejected_steps"):
        assert int(ours.stats[name]) == int(theirs.stats[name]), name


WAYS = {
    "default": {},
    "tight": {"rtol": bound(1e-9, 1e-6), "atol": bound(1e-10, 1e-7)},
    "stabilised": {"solver": wgf.flows.RKC()},
    "constant": {"solver": diffrax.Heun(), "controller": diffrax.ConstantStepSize(), "dt0": 0.07},
    "steady": {"steady": 1e-3},
    "noise": {"temperature": 0.1, "key": jax.random.key(3), "dt0": 0.05},
}


@pytest.mark.parametrize("way", WAYS)
def test_run_is_flow_bit_for_bit(way):
    ours = wgf.run(bowl, start(), TAUS, segment_steps=7, progress=False, **WAYS[way])
    assert_same(ours, wgf.flow(bowl, start(), TAUS, **WAYS[way]))


@pytest.fixture(scope="module")
def limit_problem():
    key = jax.random.key(5)
    prompts = regression(key)
    encoder = averaged(prompts.token_dim)
    initial = wgf.measures.Gaussian(encoder, 0.7)
    finite = wgf.Transformer(encoder, initial.layered(2, 3, key))
    limit = wgf.AveragedODE(encoder, initial.spectral(nodes=2, width=4, key=key)).with_tracers(finite)
    return wgf.Objective(prompts, weight_decay=1e-3), limit


@pytest.mark.skipif(
    in_float64(), reason="rounds as users' programs do in float32 alone, where XLA optimises as for them"
)
def test_the_limit_with_tracers_runs_bit_for_bit_and_is_kept_on_disk(limit_problem, tmp_path):
    solved = wgf.run(*limit_problem, TAUS, segment_steps=3, directory=tmp_path, progress=False)
    assert_same(solved, wgf.flow(*limit_problem, TAUS))
    with np.load(tmp_path / "saves" / "0004.npz") as row:
        assert row["tau"] == TAUS[4]
        particles = solved.model_at(4).measure.particles
        assert {name for name in row if name.startswith("parameters.")} == {
            f"parameters.{jax.tree_util.keystr(path, simple=True, separator='.')}"
            for path, _ in jax.tree_util.tree_leaves_with_path(particles)
        }
        assert sum(name.startswith("tracers.0.") for name in row) == len(jax.tree.leaves(particles))


def test_the_solution_is_read_without_the_run(limit_problem, tmp_path):
    solved = wgf.run(*limit_problem, TAUS, segment_steps=3, directory=tmp_path, progress=False)
    with np.load(tmp_path / "solution.npz") as arrays:
        np.testing.assert_array_equal(arrays["risk"], solved.risk)
    like = eqx.filter_eval_shape(wgf.flow, *limit_problem, TAUS)
    assert_same(wgf.load(tmp_path / "solution.npz", like), solved)


def test_the_solution_so_far_is_kept(tmp_path):
    stopped = wgf.run(bowl, start(), TAUS, segment_steps=2, directory=tmp_path, progress=False, time_limit=1e-9)
    found = wgf.load(tmp_path / "solution.npz", stopped)
    assert_same(found, stopped)
    assert found.result == RESULTS.out_of_time


def test_a_solution_that_cannot_be_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("wgf.flows._run.folder.write", full)
        with pytest.raises(OSError, match=r"solution\.npz could not be written \(.*No space"):
            wgf.run(bowl, start(), TAUS, directory=tmp_path, progress=False)
    assert_same(wgf.run(bowl, start(), TAUS, directory=tmp_path, progress=False), wgf.flow(bowl, start(), TAUS))


def test_a_folder_in_the_place_of_the_solution_is_refused_before_the_run(tmp_path):
    (tmp_path / "solution.npz").mkdir()
    with pytest.raises(ValueError, match=r"`directory` must hold no folder of the name solution\.npz; .* Remove it\."):
        wgf.run(bowl, start(), TAUS, directory=tmp_path, progress=False)
    assert not any((tmp_path / "saves").iterdir())


def test_the_solution_of_a_model_with_a_random_key_is_read_again(tmp_path):
    model = Keyed(jnp.array([1.0, -1.5, 0.7]), jax.random.key(3))
    solved = wgf.run(bowl, model, TAUS, directory=tmp_path, progress=False)
    found = wgf.load(tmp_path / "solution.npz", eqx.filter_eval_shape(wgf.flow, bowl, model, TAUS))
    np.testing.assert_array_equal(found.objective, solved.objective)
    np.testing.assert_array_equal(jax.random.key_data(found.models.key), jax.random.key_data(solved.models.key))


def test_a_run_goes_on_where_its_directory_stands(tmp_path):
    whole = wgf.flow(bowl, start(), TAUS)
    call = partial(wgf.run, bowl, start(), TAUS, segment_steps=2, directory=tmp_path, progress=False)
    first = call(time_limit=1e-9)
    assert first.result == RESULTS.out_of_time
    assert 0 < int(first.stats["num_steps"]) < int(whole.stats["num_steps"])
    assert not bool(first.reached[-1])
    assert np.isnan(first.objective[-1])
    np.testing.assert_array_equal(first.objective[first.reached], whole.objective[first.reached])
    second = call(time_limit=1e-9)
    assert int(second.stats["num_steps"]) > int(first.stats["num_steps"])
    assert_same(call(), whole)
    assert_same(call(), whole)  # of a finished run: read, not solved


def test_a_checkpoint_lost_in_writing_costs_only_its_steps(tmp_path):
    call = partial(wgf.run, bowl, start(), TAUS, segment_steps=2, directory=tmp_path, progress=False)
    call(time_limit=1e-9)
    (tmp_path / "checkpoints" / "99.orbax-checkpoint-tmp").mkdir()
    assert_same(call(), wgf.flow(bowl, start(), TAUS))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_keeps_what_is_done(number, tmp_path):
    """The first one asks; the handlers of before are back afterwards."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    taus = np.linspace(0, 1000.0, 3)
    call = partial(
        wgf.run,
        bowl,
        start(),
        taus,
        segment_steps=1,
        directory=tmp_path,
        progress=False,
        solver=diffrax.Euler(),
        controller=diffrax.ConstantStepSize(),
        dt0=0.05,
    )
    timer = threading.Timer(4.0, os.kill, (os.getpid(), number))
    timer.start()
    stopped = call()
    timer.join()
    assert stopped.result == RESULTS.interrupted
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert 0 < int(stopped.stats["num_steps"]) < 20_000
    assert_same(
        call(segment_steps=10_000),
        wgf.flow(
            bowl,
            start(),
            taus,
            max_steps=20_000,
            solver=diffrax.Euler(),
            controller=diffrax.ConstantStepSize(),
            dt0=0.05,
        ),
    )


@pytest.fixture
def _python_heeds_ctrl_c():
    """As in a terminal; a program begun in the background ignores it from the start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_python_heeds_ctrl_c")
def test_a_second_ctrl_c_ends_the_program():
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_directory_holds_one_problem(tmp_path):
    wgf.run(bowl, start(), TAUS, directory=tmp_path, progress=False)
    with pytest.raises(
        ValueError, match=r"`directory` must be new.*`model.x` is float(32|64)\[3\].*Pass the problem of that run"
    ):
        wgf.run(bowl, Point(start().x + 1), TAUS, directory=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"`solver.__class__` is diffrax\S+Tsit5, not diffrax\S+Dopri5"):
        wgf.run(bowl, start(), TAUS, directory=tmp_path, progress=False, solver=diffrax.Dopri5())


def scaled_bowl(scale):
    """Each a function of the same name."""
    return lambda point: scale * bowl(point)


def test_another_function_of_the_same_name_is_another_problem(tmp_path):
    """Resumed, its Q would be that of the other one's particles: not where its own flow arrives."""
    call = partial(wgf.run, model=start(), taus=TAUS, progress=False)
    one = call(scaled_bowl(1.0), directory=tmp_path / "one")
    with pytest.raises(ValueError, match=r"`objective.__closure__.scale` is 1.0, not 0.1"):
        call(scaled_bowl(0.1), directory=tmp_path / "one")
    other = call(scaled_bowl(0.1), directory=tmp_path / "other")
    assert abs(other.objective[-1] - 0.1 * one.objective[-1]) > 1e-3
    assert_same(call(scaled_bowl(0.1), directory=tmp_path / "other"), other)


CELL = """
import equinox as eqx, jax.numpy as jnp

class Loss(eqx.Module):
    data: object

    def __call__(self, point):
        return jnp.sum((point.x - self.data) ** 2)

objective = Loss(jnp.array([1.0, 2.0, 3.0]))
"""


def test_a_notebooks_cell_that_is_run_again_goes_on(tmp_path):
    def call(text):
        namespace = {"__name__": "__main__"}
        exec(compile(text, "<cell>", "exec"), namespace)
        return wgf.run(
            namespace["objective"], start(), TAUS, directory=tmp_path, progress=False, time_limit=1e-9, segment_steps=2
        )

    assert int(call(CELL).stats["num_steps"]) < int(call("\n# Again.\n" + CELL).stats["num_steps"])
    with pytest.raises(ValueError, match=r"`__main__.Loss.__call__` is a function of code \w+, not a function of code"):
        call(CELL.replace("** 2", "** 4"))
    with pytest.raises(ValueError, match=r"`objective.data` is float(32|64)\[3\]"):
        call(CELL.replace("3.0", "4.0"))


SCRIPT = """
import sys
import equinox as eqx, jax.numpy as jnp, wgf

SCALE = 1.0

class Point(eqx.Module):
    x: jnp.ndarray

def objective(point):
    return SCALE * jnp.sum(point.x**4)

taus = jnp.linspace(0, 8, 9)
options = {"time_limit": 1e-9, "segment_steps": 2, "progress": False}
solution = wgf.run(objective, Point(jnp.ones(3)), taus, directory=sys.argv[1], **options)
print(int(solution.stats["num_steps"]))
"""


@pytest.mark.heavy
def test_a_script_goes_on_in_another_process(tmp_path):
    def call(name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(Path(wgf.__file__).parents[1])}
        command = [sys.executable, str(tmp_path / name), str(tmp_path / "run")]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    first, second = call("one.py", SCRIPT), call("two.py", "# Moved.\n\n" + SCRIPT)
    assert 0 < int(first.stdout) < int(second.stdout), first.stderr + second.stderr
    edited = call("one.py", SCRIPT.replace("1.0", "2.0"))
    assert "`__main__.SCALE` is 1.0, not 2.0" in edited.stderr


def test_what_cannot_be_compared_is_refused_before_it_is_run(tmp_path):
    stream = iter([1.0])
    values = (value for value in stream)
    with pytest.raises(ValueError, match=r"`objective.__closure__.values`.* is of type builtins.generator"):
        wgf.run(lambda point: next(values) * bowl(point), start(), TAUS, directory=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


FINE = np.linspace(0.0, 1.0, 41)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run stopped twice: its directory with two checkpoints, and the number of states before each."""
    directory = tmp_path_factory.mktemp("interrupted")
    stop = partial(wgf.run, bowl, start(), FINE, directory=directory, time_limit=1e-9, segment_steps=2, progress=False)
    counts = [int(stop().reached.sum()) for _ in range(2)]
    assert 1 < counts[0] < counts[1] < FINE.size
    return directory, counts


@pytest.fixture
def call(interrupted, tmp_path):
    """Go on with a copy of the interrupted run, to the end."""
    shutil.copytree(interrupted[0], tmp_path / "run")
    return partial(wgf.run, bowl, start(), FINE, directory=tmp_path / "run", progress=False)


@pytest.fixture(scope="module")
def whole():
    return wgf.flow(bowl, start(), FINE)


def checkpoints(directory):
    """The steps at which there are checkpoints."""
    return sorted(int(path.name) for path in (directory / "checkpoints").iterdir())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b'{"parts": {"taus": "float',
        b"[]",
        b"\xff\xfe",
        b'{"arrays": {}, "structure": ""}',
        b'{"parts": 1, "versions": {}}',
    ],
)
def test_a_damaged_description_of_the_problem(call, tmp_path, text):
    (tmp_path / "run" / "problem.json").write_bytes(text)
    with pytest.raises(
        ValueError, match=r"run/problem.json is empty, truncated or of another release.*Pass a new directory"
    ):
        call()


def test_states_without_their_problem(call, tmp_path):
    (tmp_path / "run" / "problem.json").unlink()
    with pytest.raises(ValueError, match=r"holds a run without problem.json, so its problem is unknown. Pass a new"):
        call()


@pytest.mark.parametrize("package", ["python", "wgf", "diffrax"])
def test_a_problem_of_another_release(call, tmp_path, package):
    path = tmp_path / "run" / "problem.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    found["versions"][package] = "another"
    path.write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(
        ValueError, match=rf"began with {package} another, not .*Continue with that release, or pass a new"
    ):
        call()


def damage(path, how):
    """What a full disk, a loss of power or a hand does to a file."""
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "other arrays":
        np.savez(path, tau=0.0, others=np.zeros(3))
    else:
        path.write_bytes(b"text")


HOWS = ["missing", "empty", "cut", "other arrays", "text"]


@pytest.mark.parametrize("how", HOWS)
def test_a_damaged_state_after_the_earlier_checkpoint_is_computed_again(call, tmp_path, whole, interrupted, how):
    """The run goes back to the checkpoint before it."""
    directory, counts = interrupted
    name = f"{counts[0]:04d}.npz"
    damage(tmp_path / "run" / "saves" / name, how)
    first, last = checkpoints(tmp_path / "run")
    with pytest.warns(
        UserWarning, match=rf"{name} is missing, trunc.* resumes from the checkpoint after {first} steps"
    ):
        stopped = call(time_limit=1e-9, segment_steps=1)
    assert checkpoints(tmp_path / "run") == [first, int(stopped.stats["num_steps"])] < [first, last]
    assert_same(call(), whole)
    assert (tmp_path / "run" / "saves" / name).read_bytes() == (directory / "saves" / name).read_bytes()


@pytest.mark.parametrize("how", HOWS)
def test_a_damaged_state_before_all_checkpoints(call, tmp_path, whole, how):
    damage(tmp_path / "run" / "saves" / "0001.npz", how)
    with pytest.raises(
        ValueError, match=r"run/saves/0001.npz is missing, truncated or has other .*delete \S+run/checkpoints:"
    ):
        call()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert_same(call(), whole)


def test_a_state_of_another_time_or_shape(call, tmp_path):
    path = tmp_path / "run" / "saves" / "0001.npz"
    right = dict(np.load(path))
    for name, value in (
        ("tau", 7.0),
        ("dissipated", np.zeros(2)),
        ("dissipated", np.zeros((), bound(np.float32, np.float16))),
    ):
        np.savez(path, **{**right, name: value})
        with pytest.raises(ValueError, match=r"0001.npz is missing, truncated or has other contents"):
            call()
    np.savez(path, **right)
    call()


def test_a_damaged_checkpoint_costs_only_its_steps(call, tmp_path, whole):
    """If any of its files is truncated, the run goes back to the one before it, and writes new ones."""
    first, last = checkpoints(tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints" / str(last)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        damage(path, "empty")
    with pytest.warns(UserWarning, match=rf"checkpoints/{last} is missing, .* from the checkpoint after {first} steps"):
        assert_same(call(), whole)
    assert_same(call(), whole)


def test_no_whole_checkpoint(call, tmp_path, whole):
    steps = checkpoints(tmp_path / "run")
    for path in [path for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file()]:
        damage(path, "empty")
    with pytest.raises(
        ValueError, match=rf"run/checkpoints/{steps[-1]} is missing, truncated or has other contents. Restore"
    ):
        call()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert_same(call(), whole)


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    wgf.run(bowl, start(), TAUS, directory="~/x", progress=False)
    assert (tmp_path / "x" / "problem.json").exists()
    assert not (tmp_path / "~").exists()
    with pytest.raises(ValueError, match="`directory` begins with ~ and must then name a user; got ~no-such-user/x"):
        wgf.run(bowl, start(), TAUS, directory="~no-such-user/x", progress=False)


def test_a_directory_that_is_a_file(tmp_path):
    (tmp_path / "x").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"`directory` must be a folder or a new path; .*x is a file"):
        wgf.run(bowl, start(), TAUS, directory=tmp_path / "x", progress=False)


def test_one_program_for_a_whole_run():
    """Python sees the objective as often in a run of one part as in one of 30: each trace is for all parts."""

    def traces(steps):
        seen = []

        def objective(point):
            seen.append(None)
            return bowl(point)

        wgf.run(objective, start(), TAUS, segment_steps=steps, progress=False)
        return len(seen)

    assert 1 <= traces(1) == traces(100)


def test_progress_line(capsys):
    wgf.run(bowl, start(), TAUS, segment_steps=4, progress=True)
    line = capsys.readouterr().err
    for part in ("τ 8/8", "Q ", "dissipation ", "step ", "rejected ", "100%"):
        assert part in line, line


@pytest.mark.parametrize("is_notebook", [True, False])
def test_the_progress_line_is_shown_by_default_in_a_notebook(is_notebook, capsys, monkeypatch):
    shell = SimpleNamespace(kernel=object()) if is_notebook else None
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    wgf.run(bowl, start(), TAUS, segment_steps=4)
    assert ("τ 8/8" in capsys.readouterr().err) == is_notebook


def sink(point):
    """Q = −x⁴: the flow x' = 4x³ is infinite at τ = 1/8 from x = 1."""
    return -jnp.sum(point.x**4)


def test_a_stiff_problem_is_recognised():
    stiff = lambda p: 1e4 * p.x[0] ** 2 + 0.5 * p.x[1] ** 2  # noqa: E731
    with pytest.raises(RuntimeError, match=r"rejected ones, the next of .*because it is stiff"):
        wgf.run(stiff, Point(jnp.ones(2)), [0.0, 10.0], max_steps=600, rtol=1e-3, progress=False)


def test_failures_say_why():
    with pytest.raises(RuntimeError, match=r"At τ = 0\.12\d* of 8.*stopped being finite"):
        wgf.run(lambda p: sink(p) * jnp.where(p.x[0] < 30, 1, jnp.nan), Point(jnp.ones(1)), TAUS, progress=False)
    with pytest.raises(RuntimeError, match="stopped being finite"):
        wgf.run(
            sink,
            Point(jnp.ones(1)),
            TAUS,
            progress=False,
            solver=diffrax.Euler(),
            controller=diffrax.ConstantStepSize(),
            dt0=0.1,
        )
    with pytest.raises(RuntimeError, match="below what the numbers resolve"):
        wgf.run(bowl, start(), TAUS, rtol=1e-16, atol=1e-18, max_steps=100, progress=False)
    plain = wgf.run(
        bowl, start(), TAUS, rtol=bound(1e-12, 2e-6), atol=bound(1e-13, 1e-8), max_steps=20, progress=False, throw=False
    )
    assert plain.result == RESULTS.stalled


@pytest.mark.parametrize(
    ("argument", "rule"),
    [
        ("time_limit", "a positive number of seconds"),
        ("checkpoint_every", "a positive number of seconds"),
        ("max_steps", "a whole number of at least 1"),
    ],
)
def test_options_are_positive(argument, rule):
    with pytest.raises(ValueError, match=f"`{argument}` must be {rule}; got 0"):
        wgf.run(bowl, start(), TAUS, **{argument: 0})
    with pytest.raises(ValueError, match="`segment_steps` must be"):
        wgf.run(bowl, start(), TAUS, segment_steps=0)


def test_from_another_thread():
    """Signals belong to the main thread: elsewhere the run goes without."""
    results = []
    thread = threading.Thread(target=lambda: results.append(wgf.run(bowl, start(), TAUS, progress=False)))
    began = time.monotonic()
    thread.start()
    thread.join(timeout=300)
    assert time.monotonic() - began < 300
    assert results[0].result == RESULTS.successful
