"""The run of `wgf markov`."""

from typing import Any

import jax

from ..._checks import check_memory
from .._parts import Parts
from .._progress import Progress
from .._settings import with_settings
from ._config import MarkovConfig, check
from ._escape import train_escapes
from ._portrait import Portrait, portrait
from ._result import MarkovResult
from ._training import train_initialisations, train_mean_field, train_rates, train_widths


@with_settings
def run(config: MarkovConfig, *, show_progress: bool | None = None, parts: Parts | None = None) -> MarkovResult:
    """Run all parts: portraits, initialisations, learning rates, widths, steps to escape.

    **Arguments:**

    - `config`: [`wgf.experiments.MarkovConfig`][].
    - `show_progress`: whether to draw a progress bar; None for a bar on a terminal and in a notebook.
    - `parts`: [`wgf.experiments.Parts`][], where finished parts are kept and read; None for nowhere.

    **Returns:** [`wgf.experiments.MarkovResult`][].

    **Raises:** `ValueError` that names the option that cannot be used, before anything is compiled.
    """
    check(config)
    check_memory(batch=config.batch, length=config.length, seeds=config.seeds)
    check_memory(each=config.seeds, widths=max(config.widths))
    check_memory(each=config.grid, grid=config.grid)
    init_key, width_key, field_key = jax.random.split(jax.random.key(config.seed), 3)
    common: Any = {"seeds": config.seeds, "steps": config.steps, "batch": config.batch}

    def starts(_):
        return train_initialisations(init_key, config.chains, config.scales, length=config.length, **common)

    def rates(_):
        return train_rates(width_key, config.hard, config.rates, length=config.length, **common)

    def widths(_):
        return train_widths(width_key, config.hard, config.widths, length=config.length, tau=200.0, **common)

    def mean_field(_):
        return train_mean_field(field_key, config.hard, config.particles, (0.02, 0.5), length=16, **common)

    def escapes(_):
        counts: Any = {"seeds": config.seeds, "batch": config.batch, "length": config.length}
        return train_escapes(width_key, config.hard, config.rates, config.widths, reach=config.reach, **counts)

    trainings: dict[str, Any] = {
        "initialisations": starts,
        "widths": widths,
        "mean field": mean_field,
        "learning rates": rates,
        "steps to escape": escapes,
    }
    # One program is compiled while another runs.
    with Progress(len(config.chains) + len(trainings), show_progress, at_once=2, parts=parts) as progress:
        trained = {name: progress.start(name, part) for name, part in trainings.items()}
        portraits = [
            progress.start(f"canonical model, p = {p:g}, q = {q:g}", _portrait, config, p, q) for p, q in config.chains
        ]
        return MarkovResult(
            config,
            tuple(each.result() for each in portraits),
            initialisations=trained["initialisations"].result(),
            rates=trained["learning rates"].result(),
            widths=trained["widths"].result(),
            mean_field=trained["mean field"].result(),
            escapes=trained["steps to escape"].result(),
        )


def _portrait(_, config: MarkovConfig, p: float, q: float) -> Portrait:
    return portrait(p, q, config.grid, config.tau)
