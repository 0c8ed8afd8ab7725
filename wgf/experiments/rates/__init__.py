"""Rates: how the gaps between finite Transformers and their limit fall with depth and width."""

from ._config import PATHS as PATHS, RatesConfig as RatesConfig
from ._result import KINDS as KINDS, RatesResult as RatesResult
from ._run import run as run
