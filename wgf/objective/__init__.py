"""The objective: readout, loss, weight decay; risk R, objective Q, first variation δQ/δρ."""

from .._backend import precision as _precision
from ._first_variation import FirstVariation as FirstVariation
from ._function import FunctionLoss as FunctionLoss, FunctionReadout as FunctionReadout
from ._loss import (
    AbstractLoss as AbstractLoss,
    CrossEntropy as CrossEntropy,
    HalfSquaredError as HalfSquaredError,
)
from ._objective import Objective as Objective
from ._readout import (
    AbstractReadout as AbstractReadout,
    EveryRows as EveryRows,
    QueryEntry as QueryEntry,
    QueryRows as QueryRows,
)

_precision.export(globals())
