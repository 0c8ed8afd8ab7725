"""The driver: the flow in parts, bit for bit; stops, goes on, and says why it failed."""

import os
import signal
import threading
import time
from functools import partial

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, bound, regression

import wgf
from wgf.flows import RESULTS

TAUS = np.linspace(0.0, 8.0, 9)


class Point(eqx.Module):
    """All that moves."""

    x: jnp.ndarray


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
    "tight": {"rtol": 1e-9, "atol": 1e-10},
    "stabilised": {"solver": wgf.flows.RKC()},
    "constant": {"solver": diffrax.Heun(), "controller": diffrax.ConstantStepSize(), "dt0": 0.07},
    "steady": {"steady": 1e-3},
    "noise": {"temperature": 0.1, "key": jax.random.key(3), "dt0": 0.05},
}


@pytest.mark.parametrize("way", WAYS)
def test_run_is_flow_bit_for_bit(way):
    assert_same(
        wgf.run(bowl, start(), TAUS, chunk=7, progress=False, **WAYS[way]), wgf.flow(bowl, start(), TAUS, **WAYS[way])
    )


@pytest.fixture(scope="module")
def limit_problem():
    key = jax.random.key(5)
    prompts = regression(key)
    encoder = averaged(prompts.token_dim)
    initial = wgf.measures.Gaussian(encoder, 0.7)
    finite = wgf.Transformer(encoder, initial.layered(2, 3, key))
    limit = wgf.AveragedODE(encoder, initial.spectral(nodes=2, width=4, key=key)).with_tracers(finite)
    return wgf.Objective(prompts, weight_decay=1e-3), limit


def test_the_limit_with_tracers_runs_bit_for_bit_and_is_kept_on_disk(limit_problem, tmp_path):
    solved = wgf.run(*limit_problem, TAUS, chunk=3, directory=tmp_path, progress=False)
    assert_same(solved, wgf.flow(*limit_problem, TAUS))
    with np.load(tmp_path / "saves" / "0004.npz") as row:
        assert row["tau"] == TAUS[4]
        particles = solved.model_at(4).measure.particles
        assert {name for name in row if name.startswith("parameters.")} == {
            f"parameters.{jax.tree_util.keystr(path, simple=True, separator='.')}"
            for path, _ in jax.tree_util.tree_leaves_with_path(particles)
        }
        assert sum(name.startswith("tracers.0.") for name in row) == len(jax.tree.leaves(particles))


def test_a_run_goes_on_where_its_directory_stands(tmp_path):
    whole = wgf.flow(bowl, start(), TAUS)
    call = partial(wgf.run, bowl, start(), TAUS, chunk=2, directory=tmp_path, progress=False)
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
    call = partial(wgf.run, bowl, start(), TAUS, chunk=2, directory=tmp_path, progress=False)
    call(time_limit=1e-9)
    (tmp_path / "checkpoints" / "99.orbax-checkpoint-tmp").mkdir()
    assert_same(call(), wgf.flow(bowl, start(), TAUS))


def test_ctrl_c_keeps_what_is_done(tmp_path):
    """The first one asks; Python's own handler is back afterwards."""
    before = signal.getsignal(signal.SIGINT)
    taus = np.linspace(0, 1000.0, 3)
    call = partial(
        wgf.run,
        bowl,
        start(),
        taus,
        chunk=1,
        directory=tmp_path,
        progress=False,
        solver=diffrax.Euler(),
        controller=diffrax.ConstantStepSize(),
        dt0=0.05,
    )
    timer = threading.Timer(4.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    stopped = call()
    timer.join()
    assert stopped.result == RESULTS.interrupted
    assert signal.getsignal(signal.SIGINT) is before
    assert 0 < int(stopped.stats["num_steps"]) < 20_000
    assert_same(
        call(chunk=10_000),
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
    with wgf.flows._interrupt.Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_directory_holds_one_problem(tmp_path):
    wgf.run(bowl, start(), TAUS, directory=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"`directory` must be new.*`model.x` is float64\[3\]"):
        wgf.run(bowl, Point(start().x + 1), TAUS, directory=tmp_path, progress=False)
    with pytest.raises(ValueError, match="same arrays, but another encoder"):
        wgf.run(bowl, start(), TAUS, directory=tmp_path, progress=False, solver=diffrax.Dopri5())


def test_one_program_for_a_whole_run():
    """Python sees the objective as often in a run of one part as in one of 30: each trace is for all parts."""

    def traces(chunk):
        seen = []

        def objective(point):
            seen.append(None)
            return bowl(point)

        wgf.run(objective, start(), TAUS, chunk=chunk, progress=False)
        return len(seen)

    assert 1 <= traces(chunk=1) == traces(chunk=100)


def test_progress_line(capsys):
    wgf.run(bowl, start(), TAUS, chunk=4, progress=True)
    line = capsys.readouterr().err
    for part in ("τ 8/8", "Q ", "dissipation ", "step ", "rejected ", "100%"):
        assert part in line, line


def sink(point):
    """Q = −x⁴: the flow x' = 4x³ is infinite at τ = 1/8 from x = 1."""
    return -jnp.sum(point.x**4)


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
    stiff = lambda p: 1e4 * p.x[0] ** 2 + 0.5 * p.x[1] ** 2  # noqa: E731
    with pytest.raises(RuntimeError, match=r"rejected ones, the next of .*because it is stiff"):
        wgf.run(stiff, Point(jnp.ones(2)), [0.0, 100.0], max_steps=600, rtol=1e-3, progress=False)
    with pytest.raises(RuntimeError, match="below what the numbers resolve"):
        wgf.run(bowl, start(), TAUS, rtol=1e-16, atol=1e-18, max_steps=100, progress=False)
    plain = wgf.run(
        bowl, start(), TAUS, rtol=bound(1e-12, 1e-6), atol=bound(1e-13, 1e-8), max_steps=20, progress=False, throw=False
    )
    assert plain.result == RESULTS.stalled


@pytest.mark.parametrize("argument", ["time_limit", "checkpoint_every", "max_steps"])
def test_options_are_positive(argument):
    with pytest.raises(ValueError, match=f"`{argument}` must be positive; got 0"):
        wgf.run(bowl, start(), TAUS, **{argument: 0})
    with pytest.raises(ValueError, match="`chunk` must be"):
        wgf.run(bowl, start(), TAUS, chunk=0)


def test_from_another_thread():
    """Signals belong to the main thread: elsewhere the run goes without."""
    results = []
    thread = threading.Thread(target=lambda: results.append(wgf.run(bowl, start(), TAUS, progress=False)))
    began = time.monotonic()
    thread.start()
    thread.join(timeout=300)
    assert time.monotonic() - began < 300
    assert results[0].result == RESULTS.successful
