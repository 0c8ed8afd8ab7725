"""The main job: finite Transformers of growing size against the Wasserstein-flow PDE."""

from ._config import LimitConfig as LimitConfig
from ._result import LimitResult as LimitResult
from ._run import run as run
