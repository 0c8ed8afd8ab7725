"""The run of `wgf decay`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._checks import check_memory
from ...analysis import certificate
from ...flows import RosenbrockW, flow
from ...objective import Objective
from .._failures import first_line
from .._parts import Parts
from .._progress import Progress
from .._settings import with_settings
from ._config import DecayConfig, check
from ._problem import load, start
from ._result import DecayResult, Rest


@with_settings
def run(config: DecayConfig, *, show_progress: bool | None = None, parts: Parts | None = None) -> DecayResult:
    """Follow every flow to its end in float64, and compute the optimality certificate there.

    **Arguments:**

    - `config`: [`wgf.experiments.DecayConfig`][].
    - `show_progress`: whether to draw a progress bar; None for a bar on a terminal and in a notebook.
    - `parts`: [`wgf.experiments.Parts`][], where finished parts are kept and read; None for nowhere.

    **Returns:** [`wgf.experiments.DecayResult`][].

    **Raises:** `ValueError` that names the option that cannot be used, before anything is compiled.
    """
    check(config)
    check_memory(each=config.depth * config.width, saves=config.saves)
    flows = [(name, False, decay) for name in config.data for decay in config.weight_decays]
    flows += [(config.data[0], True, decay) for decay in config.weight_decays]
    ends = []
    # At small weight decay the last motion of the flow is far below the rounding error of float32.
    with jax.enable_x64(True), Progress(len(flows), show_progress, parts=parts) as progress:
        for name, planted, decay in flows:
            label = f"{name}, {'planted' if planted else 'rho_0'}, lambda = {decay!r}"
            ends.append(progress.run(label, _follow, config, name, planted, decay))
    return DecayResult(config, tuple(ends))


def _follow(_, config: DecayConfig, name: str, planted: bool, decay: float) -> Rest:
    """One flow to its end, or why it failed."""
    before = np.geomspace(min(1e-2, (config.horizon - 1) / 2), config.horizon - 1, config.saves - 2)
    taus = np.concatenate([[0.0], before, [config.horizon]]) / decay
    try:
        return _solve(config, name, planted, decay, taus)
    except eqx.EquinoxRuntimeError as error:
        return Rest.failed(name, planted, decay, taus, first_line(error))


def _solve(config: DecayConfig, name: str, planted: bool, decay: float, taus: np.ndarray) -> Rest:
    prompts, teacher = load(config, name)
    objective = Objective(prompts, decay)
    model = start(config, prompts, planted)
    # The flow is stiff with ratio 1/λ, in at most as many directions as there are prompts. RosenbrockW is made for it.
    solution = flow(
        objective,
        model,
        jnp.asarray(taus),
        solver=RosenbrockW(),
        rtol=jnp.asarray(config.rtol),
        atol=jnp.asarray(1e-2 * config.rtol),
        max_steps=20_000,
    )
    end = solution.model_at(-1)
    q, null = float(solution.objective[-1]), float(prompts.label_rms()) ** 2 / 2
    found = certificate(objective, end, key=jax.random.key(config.seed))
    return Rest(
        name,
        planted,
        decay,
        taus,
        risks=np.asarray(solution.risk) / null,
        objective=q,
        bound=float("nan") if teacher is None else float(objective(teacher)),
        motion=float(solution.objective[-2]) / q - 1,
        gap=float(found.value) / q,
        steps=int(solution.stats["num_steps"]),
    )
