"""The run of `wgf images`."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from ..._checks import check_memory, expanded
from ...measures import Gaussian
from ...models import Transformer
from ...prompts import Split, cifar10, digits
from .._parts import Parts
from .._progress import Progress
from .._settings import with_settings
from ._config import ImagesConfig, check
from ._result import Curves, ImagesResult, Run, name_of
from ._training import train_seeds, vision_encoder


@with_settings
def run(config: ImagesConfig, *, show_progress: bool | None = None, parts: Parts | None = None) -> ImagesResult:
    """Train every size from every seed.

    **Arguments:**

    - `config`: [`wgf.experiments.ImagesConfig`][].
    - `show_progress`: whether to draw a progress bar; None for a bar on a terminal and in a notebook.
    - `parts`: [`wgf.experiments.Parts`][], where finished parts are kept and read; None for nowhere.

    **Returns:** [`wgf.experiments.ImagesResult`][].

    **Raises:** `ValueError` that names the option that cannot be used, before anything is compiled.
    """
    check(config)
    data_key, run_key = jax.random.split(jax.random.key(config.seed))
    check_memory(layers=max(config.depth, *config.layers), heads=max(config.heads), seeds=config.seeds)
    split = _load(data_key, config)
    runs = []
    with Progress(len(config.sizes), show_progress, parts=parts) as progress:
        for layers, heads in config.sizes:
            runs.append(progress.run(name_of(layers, heads), _run, config, split, layers, heads, run_key))
    return ImagesResult(config, (split.train.batch, split.held_out.batch), tuple(runs))


def _load(key: PRNGKeyArray, config: ImagesConfig) -> Split:
    cut: Any = {"patch": config.patch, "features": config.features, "positions": config.positions}
    if config.data == "cifar10":
        if config.root is None:
            raise ValueError("`root` must name the folder of CIFAR-10's binary files with `data` 'cifar10'; got None.")
        return cifar10(key, expanded("root", config.root), images=config.images, **cut)
    if config.root is not None or config.images is not None:
        raise ValueError(
            f"`root` and `images` go with `data` 'cifar10'; got {config.root} and {config.images} with 'digits'."
        )
    return digits(key, **cut)


def _run(_, config: ImagesConfig, split: Split, layers: int, heads: int, key: PRNGKeyArray) -> Run:
    """Train all seeds of one size."""
    encoder = vision_encoder(split.train.token_dim, config.key_dim)
    law = Gaussian(encoder, config.scale)
    init_key, batch_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, layers), heads))
    draw = lambda k: Transformer(encoder, law.layered(layers, heads, k))  # noqa: E731
    models = eqx.filter_vmap(draw)(jax.random.split(init_key, config.seeds))
    every = max(1, split.train.batch * config.epochs // (config.saves * config.batch))
    steps = every * config.saves
    optimiser = optax.adam(optax.cosine_decay_schedule(config.rate, steps))
    keys = jax.random.split(batch_key, config.seeds)
    curves = train_seeds(split, config.weight_decay, models, keys, optimiser, steps, every, config.batch)
    return Run(layers, heads, *(Curves(*map(np.asarray, part)) for part in curves))
