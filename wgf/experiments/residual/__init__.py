"""Residual connections: the condition number of attention's output, and the linear rate of training that it implies."""

from .._power_law import PowerLaw as PowerLaw
from ._condition import Condition as Condition, Runs as Runs
from ._config import ResidualConfig as ResidualConfig
from ._result import ResidualResult as ResidualResult
from ._run import run as run
