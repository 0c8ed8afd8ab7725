"""The run of `wgf residual`."""

from ..._checks import check_memory
from .._parts import Parts
from .._progress import Progress
from .._settings import with_settings
from ._condition import conditions_of
from ._config import ResidualConfig, check
from ._result import ResidualResult
from ._training import train_condition


@with_settings
def run(config: ResidualConfig, *, show_progress: bool | None = None, parts: Parts | None = None) -> ResidualResult:
    """Run every condition: lengths and temperatures of one layer, gradient descent at each length, and the depths.

    **Arguments:**

    - `config`: [`wgf.experiments.ResidualConfig`][].
    - `show_progress`: whether to draw a progress bar; None for a bar on a terminal and in a notebook.
    - `parts`: [`wgf.experiments.Parts`][], where finished parts are kept and read; None for nowhere.

    **Returns:** [`wgf.experiments.ResidualResult`][].

    **Raises:** `ValueError` that names the option that cannot be used, before anything is compiled.
    """
    check(config)
    check_memory(dim=config.dim, hidden=config.hidden, seeds=config.seeds, saves=config.saves)
    conditions = conditions_of(config)
    # One program is compiled while another runs.
    with Progress(len(conditions), show_progress, at_once=2, parts=parts) as progress:
        runs = [progress.start(c.name.replace("_", " "), train_condition, config, c) for c in conditions]
        return ResidualResult(config, tuple(each.result() for each in runs))
