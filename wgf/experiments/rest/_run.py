"""The run of `wgf rest`."""

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._checks import check_memory
from ...encoders import Average, Perceptron, SoftmaxAttention
from ...measures import Gaussian, SignPairs
from ...models import AbstractModel, AveragedODE, Transformer
from ...objective import Objective
from .._data import load_prompts
from .._failures import first_line
from .._parts import Parts
from .._progress import Progress
from .._settings import with_settings
from ._config import RestConfig, check
from ._result import RestResult
from ._trial import Trial, follow

# The stage times of the default solver in depth.
_STAGES = 8


@with_settings
def run(config: RestConfig, *, show_progress: bool | None = None, parts: Parts | None = None) -> RestResult:
    """Follow every model to rest and beyond in float64: finite Transformers, and the PDE, on each data set.

    **Arguments:**

    - `config`: [`wgf.experiments.RestConfig`][].
    - `show_progress`: whether to draw a progress bar; None for a bar on a terminal and in a notebook.
    - `parts`: [`wgf.experiments.Parts`][], where finished parts are kept and read; None for nowhere.

    **Returns:** [`wgf.experiments.RestResult`][].

    **Raises:** `ValueError` that names the option that cannot be used, before anything is compiled.
    """
    check(config)
    check_memory(sizes=max(depth * width for depth, width in config.sizes), saves=config.saves)
    check_memory(width=_STAGES * config.width, saves=config.saves)
    sizes = [(False, *size) for size in config.sizes] + [(True, _STAGES, config.width)]
    # At small weight decay the last motion of the flow is far below the rounding error of float32. Two sizes run at
    # once, for one of them may compile. Two data sets of one size would both compile the same programs.
    with jax.enable_x64(True), Progress(len(config.data) * len(sizes), show_progress, at_once=2, parts=parts) as bar:
        trials = [
            bar.start(f"{name}, {'PDE' if size[0] else f'L = {size[1]}, M = {size[2]}'}", _trial, config, name, size)
            for name in config.data
            for size in sizes
        ]
        return RestResult(config, tuple(trial.result() for trial in trials))


def _trial(_, config: RestConfig, name: str, size: tuple[bool, int, int]) -> Trial:
    """One model on one data set, or why its flow failed."""
    data_key, model_key, search_key = jax.random.split(jax.random.key(config.seed), 3)
    prompts = load_prompts(data_key, name, None, batch=config.batch, examples=config.examples, dim=config.dim)
    encoder = Average(
        SoftmaxAttention(prompts.token_dim, key_dim=config.key_dim), Perceptron(prompts.token_dim, jnp.tanh)
    )
    model = _model(config, encoder, size, model_key)
    try:
        return follow(config, name, Objective(prompts, config.weight_decay), model, size[0], search_key)
    except eqx.EquinoxRuntimeError as error:
        return Trial.failed(config, name, size, first_line(error))


def _model(config: RestConfig, encoder: Average, size: tuple[bool, int, int], key) -> AbstractModel:
    """A finite model with independent particles, or the PDE's with sign pairs."""
    is_limit, depth, width = size
    if is_limit:
        return AveragedODE(encoder, Gaussian(encoder, config.scale, SignPairs()).staged(width, key))
    return Transformer(encoder, Gaussian(encoder, config.scale).layered(depth, width, key))
