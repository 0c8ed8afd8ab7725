"""Transformers on Markov data: local minima against global minima."""

from ._config import MarkovConfig as MarkovConfig
from ._portrait import SIDE as SIDE, Portrait as Portrait, portrait as portrait
from ._result import MarkovResult as MarkovResult
from ._run import run as run
from ._trained import Trained as Trained
from ._training import (
    train_initialisations as train_initialisations,
    train_mean_field as train_mean_field,
    train_rates as train_rates,
    train_widths as train_widths,
)
