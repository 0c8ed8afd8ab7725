"""The data measure μ: weighted sets of prompts."""

from .._backend import precision as _precision
from ._cifar import cifar10 as cifar10
from ._csv import read_csv as read_csv
from ._images import (
    Split as Split,
    digits as digits,
    patch_prompts as patch_prompts,
    split_prompts as split_prompts,
)
from ._markov import MarkovChain as MarkovChain
from ._next_token import next_tokens as next_tokens, symbol_tokens as symbol_tokens
from ._padded import pad_prompts as pad_prompts
from ._prompts import Prompts as Prompts
from ._regression import linear_regression as linear_regression
from ._table import diabetes as diabetes, from_table as from_table

_precision.export(globals())
