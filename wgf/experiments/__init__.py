"""Experiments: a config, `run(config) -> result`, and a figure each."""

from ._progress import Progress as Progress
from .limit import LimitConfig as LimitConfig, LimitResult as LimitResult
