"""The library's programs compile for an NVIDIA GPU and for a TPU, their products at full precision. No chip is needed.

The compilers run in processes of their own, for they must be set up before JAX is imported.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import local

import pytest
from packaging.requirements import Requirement

# The chips, and the extra of JAX that names the wheels of their compilers.
CHIPS = {"h100": "cuda13-local", "v5e": "tpu"}
PROGRAMS = [
    *(f"velocity, {name}" for name in ("attention", "perceptron", "perceptron without bias", "average")),
    *(f"velocity, {name}" for name in ("attention only", "perceptron only", "kernel attention", "convolution")),
    *("velocity, normalised", "velocity, user's own"),
    *(f"flow, {name}" for name in ("finite", "padded", "spectral", "staged", "Eulerian")),
    *(f"flow, {name}, tracers" for name in ("finite", "padded", "spectral", "staged", "Eulerian")),
    *("flow of attention, tracers", "flow of replicates"),
    *("flow by Chebyshev", "flow by Rosenbrock", "flow with noise"),
    *("flow on a grid at a temperature", "flow of a plain module", "part of a run", "depth solved adaptively"),
    *("training", "trajectories and first variation", "certificate", "certificate of stages"),
    *("contributions of tracers", "initial samples", "prompts"),
    *("gap to one limit", "gap with tracers", "gap to replicates", "divergences"),
    *("one-layer Transformer", "canonical model", "residual Transformer"),
]
# On a grid of one coordinate and in closed form all sums are elementwise.
WITHOUT_PRODUCTS = {"flow, Eulerian", "flow, Eulerian, tracers", "flow on a grid at a temperature", "canonical model"}

pytestmark = pytest.mark.aot


def missing(chip: str) -> str | None:
    """Which wheel of a chip's compiler is missing, and how to install it."""
    extra = CHIPS[chip]
    named = map(Requirement, importlib.metadata.requires("jax") or [])
    needed = [each for each in named if each.marker is not None and each.marker.evaluate({"extra": extra})]
    if chip == "h100":
        needed.append(Requirement(f"jax-cuda13-pjrt=={importlib.metadata.version('jax')}"))
    for wheel in needed:
        try:
            fits = wheel.specifier.contains(importlib.metadata.version(wheel.name))
        except importlib.metadata.PackageNotFoundError:
            fits = False
        if not fits:
            return f"no compiler for {chip}: install the wheel {wheel.name}{wheel.specifier} by `pip install -e .[aot]`"
    return None


class Compilers:
    """Processes that compile for one chip, side by side."""

    def __init__(self, chip: str):
        self._chip, self._mine, self._processes, self._logs = chip, local(), [], []
        self._threads = ThreadPoolExecutor(min(2, os.cpu_count() or 1))

    def submit(self, name: str) -> Future:
        """Compile a program as soon as a process is free."""
        return self._threads.submit(self._compile, name)

    def _compile(self, name: str) -> dict:
        if getattr(self._mine, "process", None) is None:
            self._mine.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (it lives as long as the process)
            self._logs.append(self._mine.log)
            command = [sys.executable, Path(__file__).with_name("worker.py"), self._chip]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._mine.log, "text": True}
            self._mine.process = subprocess.Popen(command, env=_environment(), **pipes)
            self._processes.append(self._mine.process)
        process = self._mine.process
        try:
            process.stdin.write(f"{name}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())
        except (OSError, ValueError):
            # The compiler has ended the process: the next program gets a new one.
            self._mine.process = None
            code = process.wait()
            self._mine.log.seek(0)
            return {"error": f"the compiler ended with code {code}: {self._mine.log.read()[-3000:]}"}

    def close(self) -> None:
        """End the processes; programs that no test waits for are given up."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
            process.communicate()
        for log in self._logs:
            log.close()


def _environment() -> dict[str, str]:
    """That of users: no flags of the test suite."""
    return {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_ENABLE_X64")}


@pytest.fixture(scope="session")
def compiled(request):
    """The result for a chip and a program. All that this session asks for are compiled from the first request on."""
    compilers, results = {}, {}

    def result(chip, name):
        if chip not in compilers:
            compilers[chip] = Compilers(chip)
            calls = (getattr(item, "callspec", None) for item in request.session.items)
            asked = [call.params for call in calls if call is not None and call.params.get("chip") == chip]
            results.update({(chip, each["name"]): compilers[chip].submit(each["name"]) for each in asked})
        return results[chip, name].result()

    yield result
    for each in compilers.values():
        each.close()


def on_chips(names):
    """Parametrise a test by chip and program. The TPU's compiler is for machines that have the time."""
    return pytest.mark.parametrize(
        ("chip", "name"),
        [
            pytest.param(chip, name, marks=[pytest.mark.slow] if chip == "v5e" else [], id=f"{chip}: {name}")
            for chip in CHIPS
            for name in names
        ],
    )


def products(compiled, chip, name):
    if reason := missing(chip):
        pytest.skip(reason)
    found = compiled(chip, name)
    assert "error" not in found, found["error"]
    print(f"{chip}, {name}: {found['seconds']:.0f} s, products {found['products']}")
    return found["products"]


@on_chips(PROGRAMS)
def test_compiles_at_full_precision(compiled, chip, name):
    found = products(compiled, chip, name)
    assert set(found) == (set() if name in WITHOUT_PRODUCTS else {"highest"}), found


@pytest.mark.parametrize(("chip", "name"), [("h100", "")])
def test_all_programs_are_tested(compiled, chip, name):
    if reason := missing(chip):
        pytest.skip(reason)
    assert set(compiled(chip, name)) == {*PROGRAMS, "encoder that rounds", "chosen precision"}


@on_chips(["encoder that rounds"])
def test_a_product_that_asks_for_less_gets_it(compiled, chip, name):
    assert "default" in products(compiled, chip, name)


@on_chips(["chosen precision"])
def test_the_users_own_default_counts(compiled, chip, name):
    assert set(products(compiled, chip, name)) == {"high"}


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def said(script, *arguments):
    """What a script prints, in a process of its own."""
    if reason := missing("h100"):
        pytest.skip(reason)
    environment = {**_environment(), "PYTHONPATH": str(BENCHMARKS.parent)}
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_forecast_runs(tmp_path):
    shown = said(BENCHMARKS / "forecast.py", "--quick", "--output", tmp_path)
    assert all(len(line) <= 160 for line in shown.splitlines())
    report = json.loads((tmp_path / "forecast.json").read_text(encoding="utf-8"))
    claims, chips, clusters = report["tables"]
    assert all(row[-1] == "holds" for row in claims["rows"])
    assert chips["title"] in shown
    (row,) = (dict(zip(chips["columns"], row, strict=True)) for row in chips["rows"])
    assert row["forecast ms"] >= max(row["starts ms"], row["arithmetic ms"]) > 0
    one, two = (dict(zip(clusters["columns"], row, strict=True)) for row in clusters["rows"])
    assert one["messages"] == 0
    # Two halves of two layers, forward and backward.
    assert two["messages"] == 8
    assert 0 < two["efficiency"] < one["efficiency"] == 1


# JAX 0.12 launches 1,065 kernels, which move 3.6 GB; a tenth more is left for other versions.
KERNELS, GIGABYTES = 1170, 4.0


def test_a_velocity_launches_no_more_kernels_and_moves_no_more_bytes_than_today():
    asked = {"chip": "h100", "shape": "1x1", "mesh": (1, 1), "size": (16, 256, 64, 5, 9, 2)}
    found = json.loads(said(BENCHMARKS / "_forecast_program.py", json.dumps(asked)).splitlines()[-1])
    kernels = sum(times for _, _, times in found["kernels"])
    gigabytes = sum(size * times for _, size, times in found["kernels"]) / 1e9
    print(f"{kernels} kernels, {gigabytes:.2f} GB")
    assert 16 < kernels <= KERNELS
    assert 0 < gigabytes <= GIGABYTES


@pytest.mark.parametrize(
    "size",
    [
        "many particles",
        *(pytest.param(size, marks=pytest.mark.slow) for size in ("the limit", "many saved τ", "many prompts")),
    ],
)
def test_the_memory_planned_for_a_gpu_is_that_which_a_cpu_foresees(size):
    found = json.loads(said(Path(__file__).with_name("planned.py"), size).splitlines()[-1])
    print(f"{size}: {found['h100'] / 2**20:.0f} MiB on an H100, {found['cpu'] / 2**20:.0f} MiB on a CPU")
    assert 1 / 1.5 < found["h100"] / found["cpu"] < 1.5
