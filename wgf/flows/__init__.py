"""Flows: the velocity field, gradient flow in continuous time, and training by optimisers."""

from .._backend import precision as _precision
from ..solvers import RKC as RKC, CourantController as CourantController, ParticleNorm as ParticleNorm
from ._flow import flow as flow
from ._many import flow_many as flow_many
from ._memory import MemoryEstimate as MemoryEstimate, memory_estimate as memory_estimate
from ._progress_bar import ProgressBar as ProgressBar
from ._rosenbrock import RosenbrockW as RosenbrockW
from ._run import run as run
from ._solution import (
    RESULTS as RESULTS,
    AbstractSolution as AbstractSolution,
    FlowSolution as FlowSolution,
    TrainSolution as TrainSolution,
)
from ._train import train as train
from ._velocity import tracer_velocity as tracer_velocity, velocity as velocity

_precision.export(globals())
