"""A process of several dies in the middle of a run: the others end, what is saved stays, and one alone resumes."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "sharded.py"


def start(mesh, results, directory, *processes):
    """Run the program of a long run, on one simulated device."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    command = [sys.executable, SCRIPT, mesh, results, directory, *processes]
    return subprocess.Popen(
        list(map(str, command)), env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.slow
def test_the_others_end_and_the_run_resumes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = tmp_path / "run"
    first, second = (start("prompts=2", tmp_path / "two.npz", run, f"127.0.0.1:{port},2,{rank}") for rank in range(2))
    deadline = time.monotonic() + 400
    while not list(run.glob("saves/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.2)
    second.send_signal(signal.SIGKILL)
    # JAX notices by missing heartbeats, after a minute or two.
    said, _ = first.communicate(timeout=400)
    second.communicate()
    assert first.returncode != 0
    assert "distributed" in said, said[-3000:]
    assert list(run.glob("saves/*.npz")), "what was saved stays"
    for directory, results in ((run, "resumed"), (tmp_path / "other", "whole")):
        alone = start("prompts=1", tmp_path / f"{results}.npz", directory)
        said, _ = alone.communicate(timeout=500)
        assert alone.returncode == 0, said[-3000:]
    resumed, whole = (np.load(tmp_path / f"{name}.npz") for name in ("resumed", "whole"))
    for name in whole.files:
        np.testing.assert_allclose(resumed[name], whole[name], rtol=1e-5, atol=1e-7)
