"""Companion systems: models beside the mean-field ones, whose training has a theory of its own.

Plain Equinox modules; objectives are modules called on a model, so that [`wgf.flow`][] and [`wgf.train`][] move them.
"""

from .._backend import precision as _precision
from ._canonical_markov import CanonicalMarkov as CanonicalMarkov, CanonicalRisk as CanonicalRisk
from ._conditioning import (
    Spectrum as Spectrum,
    attention_spectrum as attention_spectrum,
    linear_rate_bound as linear_rate_bound,
    spectrum as spectrum,
    step_size as step_size,
)
from ._next_token_loss import NextTokenLoss as NextTokenLoss
from ._one_layer_transformer import OneLayerTransformer as OneLayerTransformer
from ._residual import (
    Block as Block,
    ResidualTransformer as ResidualTransformer,
    SmoothLeakyReLU as SmoothLeakyReLU,
    SquareLoss as SquareLoss,
)

_precision.export(globals())
