"""Flows: the velocity field, gradient flow in continuous time, and training by optimisers."""

from .. import _precision
from ._chebyshev import RKC as RKC
from ._courant import CourantController as CourantController
from ._flow import flow as flow
from ._norm import ParticleNorm as ParticleNorm
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
