"""Weight decay: where the flow comes to rest, and whether that point is the global minimum."""

from ._config import DECAYS as DECAYS, SETS as SETS, DecayConfig as DecayConfig
from ._problem import load as load, start as start
from ._result import DecayResult as DecayResult, Rest as Rest
from ._run import run as run
