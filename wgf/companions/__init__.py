"""Companion systems: models that are not mean-field, whose training has a separate theory.

They are plain Equinox modules. Objectives are modules that are called on a model, so that [`wgf.flow`][] and
[`wgf.train`][] move the models.
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
