"""Encoders: the action of one particle on the tokens of a prompt."""

from .._backend import precision as _precision
from ._attention import Head as Head, SoftmaxAttention as SoftmaxAttention
from ._average import Average as Average, Pair as Pair
from ._base import (
    AbstractEncoder as AbstractEncoder,
    AbstractFusedEncoder as AbstractFusedEncoder,
    AbstractOddEncoder as AbstractOddEncoder,
    plain_mean as plain_mean,
)
from ._chunked import Chunked as Chunked
from ._convolution import Convolution as Convolution, ConvolutionalNeuron as ConvolutionalNeuron
from ._fixed_row import FixedRow as FixedRow
from ._kernel_attention import (
    KernelAttention as KernelAttention,
    gaussian_kernel as gaussian_kernel,
    linear_kernel as linear_kernel,
    relu_kernel as relu_kernel,
    sigmoid_kernel as sigmoid_kernel,
)
from ._layer_norm import LayerNorm as LayerNorm
from ._mask import (
    AbstractMask as AbstractMask,
    Banded as Banded,
    Causal as Causal,
    Intersection as Intersection,
)
from ._padded_attention import PaddedAttention as PaddedAttention
from ._perceptron import Neuron as Neuron, Perceptron as Perceptron
from ._zero import Zero as Zero

_precision.export(globals())
