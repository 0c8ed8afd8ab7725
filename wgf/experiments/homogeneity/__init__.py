"""Homogeneity: which assumptions of the theory each encoder meets, and how its flow behaves."""

from ._config import HomogeneityConfig as HomogeneityConfig
from ._correlation import Correlation as Correlation
from ._result import HomogeneityResult as HomogeneityResult
from ._run import run as run
from ._trial import CLASSES as CLASSES, Trial as Trial
