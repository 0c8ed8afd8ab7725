"""Companion systems: small models with a theory of their own, trained by the same `flow` and `train`."""

from ._canonical_markov import CanonicalMarkov as CanonicalMarkov, CanonicalRisk as CanonicalRisk
from ._next_token_loss import NextTokenLoss as NextTokenLoss
from ._one_layer_transformer import OneLayerTransformer as OneLayerTransformer
