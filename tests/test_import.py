"""`import wgf` takes little time beyond its dependencies. What it must not import is in `test_extras`."""

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import wgf

# Processor time, because other processes stretch the time on the clock.
SCRIPT = """
import time
import diffrax, equinox, jax, optax, optimistix, ott
began = time.process_time()
import wgf
print(time.process_time() - began)
"""
LIMIT = 0.3
"""Seconds."""


def seconds():
    """The time of `import wgf` in a new process that has imported its dependencies."""
    # Python keeps the bytecode of the first import, as it does for a user.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPATH": str(Path(wgf.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)


def test_the_import_takes_little_time_beyond_its_dependencies():
    times = []
    while len(times) < 3 and min(times, default=LIMIT) >= LIMIT:
        times.append(seconds())
    assert 0 < min(times) < LIMIT, times


def test_public_rooms_show_nothing_of_others():
    """A public name of a public package is its own, or of another part of wgf: no `np`, no `Any`."""
    rooms = [each.name for each in pkgutil.iter_modules(wgf.__path__, "wgf.") if each.ispkg and "._" not in each.name]
    assert {"wgf.sharding", "wgf.transport", "wgf.experiments"} <= set(rooms)
    owners = {
        f"{room}.{name}": value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "wgf")
        for room in ["wgf", *rooms]
        for name, value in vars(importlib.import_module(room)).items()
        # The import hook of the tests adds jaxtyping.
        if not name.startswith("_") and name != "jaxtyping"
    }
    assert not {name: owner for name, owner in owners.items() if not str(owner).startswith("wgf")}
