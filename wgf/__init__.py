"""Finite Transformers, the Wasserstein-flow PDE that they converge to, and the distance between the two."""

import importlib as _importlib
import typing as _typing

from . import (
    analysis as analysis,
    companions as companions,
    encoders as encoders,
    flows as flows,
    measures as measures,
    models as models,
    objective as objective,
    prompts as prompts,
    sharding as sharding,
    solvers as solvers,
    transport as transport,
)
from ._backend.programs import clear_caches as clear_caches
from ._storage.storage import load as load, save as save
from .analysis import flow_replicates as flow_replicates, gap as gap
from .flows import (
    flow as flow,
    flow_many as flow_many,
    memory_estimate as memory_estimate,
    run as run,
    train as train,
    velocity as velocity,
)
from .models import AveragedODE as AveragedODE, Transformer as Transformer
from .objective import Objective as Objective

if _typing.TYPE_CHECKING:
    from . import experiments as experiments, plot as plot

__version__ = "0.1.0"


def __getattr__(name: str) -> _typing.Any:
    """Import `wgf.plot` and `wgf.experiments`, which need extras, when they are first used."""
    if name in ("experiments", "plot"):
        return _importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, with those of `wgf.plot` and `wgf.experiments` before they are imported."""
    return sorted({*globals(), "experiments", "plot"})
