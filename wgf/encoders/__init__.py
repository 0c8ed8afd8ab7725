"""Encoders: what one particle does to the tokens of a prompt."""

from ._attention import Head as Head, SoftmaxAttention as SoftmaxAttention
from ._average import Average as Average, Pair as Pair
from ._base import (
    AbstractEncoder as AbstractEncoder,
    AbstractFusedEncoder as AbstractFusedEncoder,
    AbstractOddEncoder as AbstractOddEncoder,
    plain_mean as plain_mean,
)
from ._perceptron import Neuron as Neuron, Perceptron as Perceptron
from ._zero import Zero as Zero
