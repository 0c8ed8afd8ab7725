"""Experiments. Each has a config dataclass, `run(config) -> result`, a table and a figure.

Each entry of `EXPERIMENTS` is a subcommand of `wgf`.
"""

import collections.abc as _abc
import typing as _typing

from . import (
    decay as decay,
    homogeneity as homogeneity,
    images as images,
    limit as limit,
    markov as markov,
    optimisers as optimisers,
    rates as rates,
    residual as residual,
    rest as rest,
)
from ._config_file import config_from as config_from, load_config as load_config
from ._parts import Parts as Parts
from ._progress import Progress as Progress
from ._result import AbstractResult as AbstractResult
from ._results import load as load, reserved as reserved, save as save
from .decay import DecayConfig as DecayConfig, DecayResult as DecayResult
from .homogeneity import HomogeneityConfig as HomogeneityConfig, HomogeneityResult as HomogeneityResult
from .images import ImagesConfig as ImagesConfig, ImagesResult as ImagesResult
from .limit import LimitConfig as LimitConfig, LimitResult as LimitResult
from .markov import MarkovConfig as MarkovConfig, MarkovResult as MarkovResult
from .optimisers import OptimisersConfig as OptimisersConfig, OptimisersResult as OptimisersResult
from .rates import RatesConfig as RatesConfig, RatesResult as RatesResult
from .residual import ResidualConfig as ResidualConfig, ResidualResult as ResidualResult
from .rest import RestConfig as RestConfig, RestResult as RestResult


class Experiment(_typing.NamedTuple):
    """One subcommand: the config dataclass (with `quick`, `out` and `quick_default()`), and `run`.

    If `keeps_parts` is true, `run` takes [`wgf.experiments.Parts`][] as `parts`, and the command resumes.
    """

    config: _typing.Any
    run: _abc.Callable[..., AbstractResult]
    keeps_parts: bool = False


EXPERIMENTS = {
    "decay": Experiment(DecayConfig, decay.run, keeps_parts=True),
    "homogeneity": Experiment(HomogeneityConfig, homogeneity.run, keeps_parts=True),
    "images": Experiment(ImagesConfig, images.run, keeps_parts=True),
    "limit": Experiment(LimitConfig, limit.run, keeps_parts=True),
    "markov": Experiment(MarkovConfig, markov.run, keeps_parts=True),
    "optimisers": Experiment(OptimisersConfig, optimisers.run, keeps_parts=True),
    "rates": Experiment(RatesConfig, rates.run, keeps_parts=True),
    "residual": Experiment(ResidualConfig, residual.run, keeps_parts=True),
    "rest": Experiment(RestConfig, rest.run, keeps_parts=True),
}
