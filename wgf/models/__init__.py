"""Models: maps of prompts through depth, given by an encoder and a measure."""

from .._backend import precision as _precision
from ._adjoint import AbstractAdjoint as AbstractAdjoint
from ._averaged_ode import AveragedODE as AveragedODE
from ._base import AbstractModel as AbstractModel
from ._transformer import Transformer as Transformer

_precision.export(globals())
