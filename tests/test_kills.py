"""Processes killed at moments that nobody chose: what resumes ends with the same numbers bit for bit.

`WGF_KILLS=20 pytest -m slow tests/test_kills.py` kills each program 20 times: about every other time at a random
moment, else while a file is being written.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

KILLS = int(os.environ.get("WGF_KILLS", "4"))
pytestmark = pytest.mark.slow

PROBLEM = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax, wgf

key = jax.random.key(0)
prompts = wgf.prompts.linear_regression(key, batch=16, examples=4, dim=2)
encoder = wgf.encoders.Perceptron(prompts.token_dim, jnp.tanh)
model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder).layered(4, 64, key))
objective = wgf.Objective(prompts, 1e-3)
folder, results = sys.argv[1:]
"""
SCRIPTS = {
    "run": """
options = {"directory": folder, "segment_steps": 4, "checkpoint_every": 0.05, "progress": False, "rtol": 1e-6}
solved = wgf.run(objective, model, np.linspace(0.0, 20.0, 41), **options)
leaves = jax.tree.leaves((solved.models.measure.particles, solved.objective, solved.dissipated))
""",
    "train": """
options = {"steps": 6000, "save_every": 100, "batch": 8, "key": key, "directory": folder}
solved = wgf.train(objective, model, optax.adam(1e-3), **options)
leaves = jax.tree.leaves((solved.models.measure.particles, solved.objective))
""",
}
END = """
np.savez(results, *map(np.asarray, leaves))
"""
LIMIT = [
    "limit",
    "--quick",
    "--sizes",
    "2",
    "4",
    "3",
    "5",
    "4",
    "6",
    "--seeds",
    "2",
    "--width",
    "64",
    "--replicates",
    "4",
]


def command(name, folder, results, tmp_path):
    """The program's command line."""
    if name == "limit":
        return [sys.executable, "-m", "wgf", *LIMIT, "--out", str(folder)]
    script = tmp_path / f"{name}.py"
    script.write_text(PROBLEM + SCRIPTS[name] + END, encoding="utf-8")
    return [sys.executable, str(script), str(folder), str(results)]


def start(name, folder, results, tmp_path):
    """The program in a process of its own; what was compiled once is kept for the next one."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(name, folder, results, tmp_path), cwd=tmp_path, env=environment, **pipes)


def whole(name, folder, results, tmp_path):
    """Run the program to its end. Returns the seconds that it took, and the arrays that it saved."""
    began = time.monotonic()
    process = start(name, folder, results, tmp_path)
    _, said = process.communicate(timeout=500)
    assert process.returncode == 0, said[-3000:]
    with np.load(folder / "result.npz" if name == "limit" else results) as kept:
        return time.monotonic() - began, {key: kept[key] for key in kept.files if key != "about"}


def files(folder):
    """What lies in a folder now. Files may go while it is read."""
    return set(folder.rglob("*")) if folder.exists() else set()


def kill(process, folder, moment, writing):
    """End the process after `moment` seconds, or, if `writing`, as soon as a file appears after them."""
    began, before = time.monotonic(), None
    while process.poll() is None:
        now = time.monotonic() - began
        if now > moment:
            found = files(folder)
            if not writing or (before is not None and found - before) or now > moment + 20:
                process.send_signal(signal.SIGKILL)
                break
            before = found
        time.sleep(0.002)
    process.communicate()


@pytest.mark.parametrize("name", ["run", "train", "limit"])
def test_a_program_killed_at_any_moment_resumes_bit_for_bit(name, tmp_path):
    whole(name, tmp_path / "first", tmp_path / "first.npz", tmp_path)  # compiles
    seconds, expected = whole(name, tmp_path / "whole", tmp_path / "whole.npz", tmp_path)
    chance, killed, tries = random.Random(20261129), 0, 0
    while killed < KILLS:
        tries += 1
        folder, results = tmp_path / f"killed{tries}", tmp_path / f"killed{tries}.npz"
        # A run is killed several times, each time a little later, until it ends by itself.
        for _ in range(4):
            process = start(name, folder, results, tmp_path)
            kill(process, folder, chance.uniform(0.2, 1.0) * seconds, writing=chance.random() < 0.5)
            killed += process.returncode == -signal.SIGKILL
            if process.returncode == 0:
                break
        _, found = whole(name, folder, results, tmp_path)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key].tobytes() == value.tobytes(), (tries, key)
        assert tries < 2 * KILLS, "the program ends before it can be killed"
