"""Optimisers against gradient flow: the orders of gradient descent and of SGD's noise, and the limits of Adam."""

from ._config import OptimisersConfig as OptimisersConfig
from ._order import BatchNoise as BatchNoise, LongRun as LongRun, Order as Order
from ._result import OptimisersResult as OptimisersResult
from ._run import run as run
