"""Beyond rest: finite Transformers and their PDE, by flow and by conditional gradient."""

from ._config import RestConfig as RestConfig
from ._result import RestResult as RestResult
from ._run import run as run
from ._trial import Stage as Stage, Trial as Trial
