"""Solvers: Runge–Kutta methods, step size controllers and norms beside those of Diffrax."""

from .._backend import precision as _precision
from ._courant import CourantController as CourantController
from ._equal_eighths import EqualEighths as EqualEighths
from ._particle_norm import ParticleNorm as ParticleNorm
from ._rkc import RKC as RKC
from ._three_eighths import ThreeEighths as ThreeEighths

_precision.export(globals())
