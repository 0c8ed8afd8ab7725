"""The run of `wgf homogeneity`."""

from typing import Any

import jax
import numpy as np

from ..._checks import check_memory
from ...prompts import Prompts
from .._data import load_prompts
from .._parts import Parts
from .._progress import Progress
from .._settings import with_settings
from ._config import HomogeneityConfig, check
from ._encoders import Specimen, specimens
from ._result import HomogeneityResult
from ._trial import Trial, measure_trial


@with_settings
def run(
    config: HomogeneityConfig, *, show_progress: bool | None = None, parts: Parts | None = None
) -> HomogeneityResult:
    """Measure every encoder's assumptions, and train it from every seed, in float64.

    **Arguments:**

    - `config`: [`wgf.experiments.HomogeneityConfig`][].
    - `show_progress`: whether to draw a progress bar; None for a bar on a terminal and in a notebook.
    - `parts`: [`wgf.experiments.Parts`][], where finished parts are kept and read; None for nowhere.

    **Returns:** [`wgf.experiments.HomogeneityResult`][].

    **Raises:** `ValueError` that names the option that cannot be used, before anything is compiled.
    """
    check(config)
    check_memory(depth=config.depth, width=config.width, seeds=config.seeds)
    check_memory(each=config.batch, windows=config.windows)
    # Degrees, jumps and least eigenvalues are compared with the rounding error, which is smaller in float64.
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(config.seed), config.seeds)
        data = [_prompts(config, key) for key in keys]
        chosen = _choose(config, specimens(data[0].token_dim, config.key_dim))
        taus = np.concatenate([[0.0], np.geomspace(min(1.0, config.horizon / 10), config.horizon, config.saves - 1)])
        trials = []
        with Progress(len(chosen), show_progress, parts=parts) as progress:
            for specimen in chosen:
                name = f"{specimen.group} {specimen.name}"
                measured = progress.run(name, _measure, config, specimen, data, keys, taus)
                trials.append(Trial(specimen, *measured))
    return HomogeneityResult(config, taus, tuple(trials))


def _measure(_, config: HomogeneityConfig, specimen: Specimen, *problem: Any) -> tuple[Any, ...]:
    """A trial's numbers. An encoder may hold functions that have no name in a file."""
    trial = measure_trial(config, specimen, *problem)
    return trial.assumptions, trial.risk, trial.violation, trial.excess


def _prompts(config: HomogeneityConfig, key) -> Prompts:
    sizes = {"batch": config.batch, "examples": config.examples, "dim": config.dim}
    return load_prompts(jax.random.fold_in(key, 0), config.data, config.target, **sizes)


def _choose(config: HomogeneityConfig, known: tuple[Specimen, ...]) -> tuple[Specimen, ...]:
    names = {f"{specimen.group} {specimen.name}": specimen for specimen in known}
    if unknown := [name for name in config.encoders if name not in names]:
        raise ValueError(f"`encoders` must be of {sorted(names)}; got the unknown {unknown}.")
    return tuple(names[name] for name in config.encoders) if config.encoders else known
