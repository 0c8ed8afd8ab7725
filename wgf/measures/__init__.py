"""The measure ρ(θ, t) over particles and depth, and the initial laws ρ₀."""

from .._backend import precision as _precision
from ..solvers import EqualEighths as EqualEighths, ThreeEighths as ThreeEighths
from ._base import AbstractMeasure as AbstractMeasure, at_coordinates as at_coordinates, coordinates as coordinates
from ._eulerian import Eulerian as Eulerian
from ._initial import (
    AbstractInitialLaw as AbstractInitialLaw,
    EncoderLaw as EncoderLaw,
    Gaussian as Gaussian,
)
from ._layered import Layered as Layered
from ._sampling import (
    AbstractSampling as AbstractSampling,
    Independent as Independent,
    SignOrbits as SignOrbits,
    SignPairs as SignPairs,
    Sobol as Sobol,
    Whitened as Whitened,
    coordinate_names as coordinate_names,
)
from ._spectral import Spectral as Spectral
from ._staged import Staged as Staged

_precision.export(globals())
