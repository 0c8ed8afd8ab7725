import gc
import os
from importlib.metadata import version
from pathlib import Path

# The suite runs in two ways. By default it proves the mathematics, in float64, and XLA does not optimise: tests compile
# many small programs and run each for milliseconds. With JAX_ENABLE_X64=0 it proves what people run: float32, at XLA's
# own level of optimisation.
if os.environ.setdefault("JAX_ENABLE_X64", "1") == "1":
    os.environ["XLA_FLAGS"] = " ".join(
        [
            os.environ.get("XLA_FLAGS", ""),
            "--xla_backend_optimization_level=0",
            "--xla_llvm_disable_expensive_passes=true",
            # Its plain emitters compile in half the time. Later versions have no others.
            *(["--xla_cpu_use_fusion_emitters=false"] if version("jaxlib").startswith("0.10.") else []),
        ]
    )

import jax
import jaxtyping
import matplotlib as mpl
import pytest

mpl.use("Agg")
# What broadcasts over axes that it does not name is a mistake more often than not.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="session")
def _collect_garbage_seldom():
    """Tracing creates millions of objects that live long: to walk over them often takes a twentieth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs(request):
    """Programs are kept from module to module, but not without end, nor for a module that counts them.

    Each holds about ten memory maps, of which Linux allows a process 65,530 in all, and 2 MB. The largest module adds
    11,000 maps. Other systems do not tell how many there are.
    """
    maps = Path("/proc/self/maps")
    if hasattr(request.module, "programs") or not maps.exists() or len(maps.read_bytes().splitlines()) > 8_000:
        jax.clear_caches()


# Rooms whose tests run with strict promotion of types.
STRICT = {"encoders", "measures", "models", "objective", "solvers", "transport", "flows", "analysis"}
# Files whose programs promote types in other libraries.
LENIENT = {
    "transport/test_engine.py",  # OTT's own iterations mix counts and numbers.
    # Optax's: line searches and L-BFGS compute in JAX's widest type, Adam divides by a power of a count.
    "flows/test_complex.py",
    "flows/test_optimiser_update.py",
    "flows/test_plain_modules.py",
    "flows/test_train.py",
    "flows/test_training.py",
}


@pytest.fixture(autouse=True, scope="module")
def _no_mixed_types(request):
    """The mathematics mixes no types of numbers: neither in tests nor in what they share."""
    path = request.path.relative_to(Path(__file__).parent)
    strict = path.parts[0] in STRICT and path.as_posix() not in LENIENT
    with jax.numpy_dtype_promotion("strict" if strict else "standard"):
        yield


@pytest.fixture
def key():
    return jax.random.key(2024)


@pytest.fixture
def unchecked():
    """Types as a user meets them: unchecked, so that the function's own check speaks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
