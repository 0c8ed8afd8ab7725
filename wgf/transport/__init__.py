"""Transport: distances between two laws, or between two measures over depth."""

from .._backend import precision as _precision
from ._conditional import conditional_divergence as conditional_divergence
from ._coupling import coupling_distance as coupling_distance
from ._divergence import Divergence as Divergence, Excess as Excess, Potentials as Potentials
from ._epsilon import epsilon_from_scale as epsilon_from_scale
from ._gelbrich import gelbrich_distance as gelbrich_distance
from ._sinkhorn import divergence_curve as divergence_curve, sinkhorn_divergence as sinkhorn_divergence

_precision.export(globals())
