"""`memory_estimate`: the memory of a flow, known before it runs."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from .._backend.compat import is_traced, memory_of
from .._backend.mesh import on_own_mesh
from .._display.text import Brief, in_bytes
from ._flow import _flow, checked
from ._problem import initial_value_problem


class MemoryEstimate(Brief):
    """The bytes that a flow takes on each device.

    - `arguments`: the objective with its prompts, the model, and the options.
    - `solution`: what the flow returns.
    - `scratch`: what it needs meanwhile: the solver's copies of the particles, the saved states, the tokens of each
      layer, and the arrays of one chunk.
    - `device`: the kind of device.

    Its `repr` is one line, and `summary()` has several.
    """

    arguments: int = eqx.field(static=True)
    solution: int = eqx.field(static=True)
    scratch: int = eqx.field(static=True)
    device: str = eqx.field(static=True)

    @property
    def peak(self) -> int:
        """The sum of the three: the most bytes in use at one time."""
        return self.arguments + self.solution + self.scratch

    def _facts(self) -> Iterator[str]:
        yield f"peak {in_bytes(self.peak)} on {self.device}"
        yield f"arguments {in_bytes(self.arguments)}"
        yield f"solution {in_bytes(self.solution)}"
        yield f"scratch {in_bytes(self.scratch)}"


@on_own_mesh
def memory_estimate(
    objective: Callable[[Any], Float[Array, ""]],
    model: PyTree,
    taus: ArrayLike | Sequence[float],
    *,
    temperature: float | Array = 0.0,
    key: PRNGKeyArray | None = None,
    solver: diffrax.AbstractSolver | None = None,
    rtol: float | Array = 1e-4,
    atol: float | Array = 1e-6,
    controller: diffrax.AbstractStepSizeController | None = None,
    dt0: float | Array | None = None,
    steady: float | Array | None = None,
    max_steps: int = 4096,
    adjoint: diffrax.AbstractAdjoint = diffrax.RecursiveCheckpointAdjoint(),  # noqa: B008
    progress_meter: diffrax.AbstractProgressMeter = diffrax.NoProgressMeter(),  # noqa: B008
) -> MemoryEstimate:
    """The memory that [`wgf.flow`][] with the same arguments will take. Nothing is solved.

    The program is compiled, and XLA's compiler reports the memory that it has planned. A later `flow` with the same
    arguments does not compile again.

    ```python
    estimate = wgf.memory_estimate(objective, model, taus)
    print(estimate)  # MemoryEstimate: peak 310 MB on cpu, arguments 29.4 MB, solution 88.1 MB, scratch 192 MB
    ```

    **Arguments:** those of [`wgf.flow`][], without `throw`.

    **Returns:** [`wgf.flows.MemoryEstimate`][]. It leaves out the process itself, its compiled programs (up to 60 MB
    more at the first call), and what else lies on the device. On a CPU the measured peak was within 5 % of it at six
    sizes (`benchmarks/memory.py`, whose claim is a factor of 1.5). Derivatives of a flow take more.

    **Raises:** `ValueError` as [`wgf.flow`][] does; if an argument is traced; if the device's compiler reports no
    memory.

    Cost: the compilation of the flow. Not for `jit`.
    """
    if is_traced(*jax.tree.leaves((objective, model, taus, temperature, key, rtol, atol, dt0, steady))):
        raise ValueError(
            "`objective`, `model` and the options must hold known numbers; got traced ones. Call `memory_estimate` "
            "outside of `jit`, `vmap` and `grad`."
        )
    problem = initial_value_problem(
        objective,
        model,
        taus,
        temperature=temperature,
        key=key,
        solver=solver,
        rtol=rtol,
        atol=atol,
        controller=controller,
        dt0=dt0,
        steady=steady,
    )
    found = memory_of(_flow, problem, *checked(max_steps, adjoint, progress_meter))
    if found is None:
        raise ValueError(f"`memory_estimate` needs a compiler that reports memory; that of {_device()} does not.")
    return MemoryEstimate(
        arguments=found.argument_size_in_bytes,
        solution=found.output_size_in_bytes - found.alias_size_in_bytes,
        scratch=found.temp_size_in_bytes,
        device=_device(),
    )


def _device() -> str:
    return jax.local_devices()[0].device_kind
