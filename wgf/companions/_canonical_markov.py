"""The canonical one-layer Transformer of a binary Markov chain: two numbers and a loss in closed form."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from .._backend.compat import is_traced
from .._backend.precision import Module
from .._checks import finite, holds, instance, numbers
from ..prompts import MarkovChain

# The saddle, and the energy of the level set through it.
SADDLE_W = -1 / math.sqrt(2)
SADDLE_ENERGY = -(1 + math.log(2)) / 2


class CanonicalMarkov(Module):
    r"""A one-layer Transformer of rank one, \( \mathrm{logit}(x_{n+1} = 1) = e^2 (1 + 2 w |w|)(x_n - \tfrac12) + b \).

    The tied embedding has size e. The two matrices of the feed-forward layer have size |w| each, and the sign of w is
    that of their product. The bias b is not a parameter: [`wgf.companions.CanonicalRisk`][] sets it to its
    optimum.

    **Arguments:** `e`, `w`: one number each.

    **Source:** arXiv:2406.03072, section 3 (its logit is
    \( e^2 (1 + 2w|w|) x_n - e^2/2 + b \): the same at optimal b).
    """

    e: Float[Array, ""]
    w: Float[Array, ""]

    def __init__(self, e: ArrayLike, w: ArrayLike):
        self.e, self.w = finite("e", e), finite("w", w)
        for name, value in (("e", self.e), ("w", self.w)):
            if value.shape != ():
                raise ValueError(f"`{name}` must be one number; got an array of shape {value.shape}.")

    @property
    def gain(self) -> Float[Array, ""]:
        r"""The difference of the two logits, \( a = e^2 (1 + 2 w |w|) \)."""
        return self.e**2 * (1 + 2 * self.w * jnp.abs(self.w))

    @property
    def energy(self) -> Float[Array, ""]:
        r"""The invariant of gradient flow, \( E = e^2 - w^2 - \mathrm{sgn}(w) \log|w| \).

        It is conserved for any chain, since \( \dot e : \dot w = \partial_e a : \partial_w a = (1 + 2w|w|) : 2 e |w|
        \). At w = 0, which no trajectory crosses, its limits are +∞ from the right and −∞ from the left. This property
        is NaN there.
        """
        return self.e**2 - self.w**2 - jnp.sign(self.w) * jnp.log(jnp.abs(self.w))


class CanonicalRisk(Module):
    r"""The expected next-token loss of a [`wgf.companions.CanonicalMarkov`][] on a binary chain, at the optimal bias,

    \[ Q(e, w) = \min_b \sum_{x, y} \pi_x P(y|x)\, \log\big(1 + e^{-(2y-1)(a (x - 1/2) + b)}\big), \qquad
       a = e^2 (1 + 2w|w|). \]

    It is an objective for [`wgf.flow`][] and [`wgf.train`][]. It depends on (e, w) only through a, and is convex in a.
    Its minimum is the entropy rate, at \( a^* = \log\frac{(1-p)(1-q)}{pq} \). At a = 0 it is the entropy of π.

    **Arguments:** `p` = P(1|0) and `q` = P(0|1), in (0, 1).

    **Raises:** `ValueError` unless p and q lie strictly between 0 and 1.

    **Source:** arXiv:2406.03072, sections 3 and 4; the bias in closed form is derived in `optimal_bias`.
    """

    p: Float[Array, ""]
    q: Float[Array, ""]

    def __init__(self, p: ArrayLike, q: ArrayLike):
        self.p, self.q = _check_open("p", p), _check_open("q", q)

    def __call__(self, model: CanonicalMarkov) -> Float[Array, ""]:
        """The loss Q(e, w)."""
        instance("model", model, CanonicalMarkov, "a wgf.companions.CanonicalMarkov")
        # Derivatives pass through the bias: the gradient through it is zero (it is optimal), but the Hessian is not.
        return self.loss(model.gain, self.optimal_bias(model.gain))

    def loss(self, gain: Float[Array, ""], bias: Float[Array, ""]) -> Float[Array, ""]:
        """The expected loss at logits `bias ± gain/2`, exact over the law of pairs (x_n, x_(n+1))."""
        pi1 = self.p / (self.p + self.q)
        after_zero, after_one = bias - gain / 2, bias + gain / 2
        zero = self.p * jax.nn.softplus(-after_zero) + (1 - self.p) * jax.nn.softplus(after_zero)
        one = (1 - self.q) * jax.nn.softplus(-after_one) + self.q * jax.nn.softplus(after_one)
        return (1 - pi1) * zero + pi1 * one

    def optimal_bias(self, gain: Float[Array, ""]) -> Float[Array, ""]:
        r"""The bias of least loss, \( b = \tfrac12 \log\frac pq + \mathrm{arsinh}\frac{(p-q) e^{-a/2}}{2\sqrt{pq}} \).

        At the optimum the model's mean is the data's, \( q\,\sigma(b - \frac a2) + p\,\sigma(b + \frac a2) = p \):
        a quadratic in \( v = e^b \), \( q v^2 - (p - q) e^{-a/2} v - p = 0 \), of which this is the positive root.
        """
        slope = (self.p - self.q) / (2 * jnp.sqrt(self.p * self.q))
        # Beyond 40 the arsinh equals a logarithm to the last digit, so its argument need not overflow.
        exponent = jnp.minimum(-gain / 2, 40)
        beyond = jnp.sign(slope) * (-gain / 2 - exponent)
        return jnp.log(self.p / self.q) / 2 + jnp.arcsinh(slope * jnp.exp(exponent)) + beyond

    @property
    def global_gain(self) -> Float[Array, ""]:
        r"""The gain of the global minima, \( a^* = \log\frac{(1-p)(1-q)}{pq} \): positive if p + q < 1."""
        return jnp.log((1 - self.p) * (1 - self.q) / (self.p * self.q))

    @property
    def chain(self) -> MarkovChain:
        """The chain of the loss."""
        return MarkovChain.binary(self.p, self.q)

    def reaches_global(self, model: CanonicalMarkov) -> Bool[Array, ""]:
        r"""Whether gradient flow from (e, w) ends on the curve of global minima, from the level set of the saddle.

        With E the invariant and E* = −(1 + log 2)/2 its value at the saddle (w, e) = (−1/√2, 0):

        - p + q < 1: yes if w > −1/√2 or E > E*;
        - p + q > 1: yes if w < −1/√2, or w < 0 and E > E*.

        Otherwise it ends on the segment e = 0 of bad local minima. On the line e = 0 the flow is at rest, so the answer
        is no.

        **Source:** arXiv:2406.03072, section 4.
        """
        w = instance("model", model, CanonicalMarkov, "a wgf.companions.CanonicalMarkov").w
        safe = CanonicalMarkov(model.e, jnp.where(w < 0, w, -1.0))
        over = (w < 0) & (safe.energy > SADDLE_ENERGY)
        favoured = jnp.where(self.global_gain > 0, w > SADDLE_W, w < SADDLE_W)
        return (model.e != 0) & (favoured | over)

    def separatrix(self, w: Float[Array, " points"]) -> Float[Array, " points"]:
        r"""The |e| on the border of the two basins, \( \sqrt{w^2 - \log|w| + E^*} \); infinite where no border exists.

        The border has w ≤ −1/√2 if p + q < 1, and −1/√2 ≤ w < 0 if p + q > 1.
        """
        w = numbers("w", w)
        reached = (w < 0) & jnp.where(self.global_gain > 0, w <= SADDLE_W, w >= SADDLE_W)
        square = w**2 - jnp.log(jnp.abs(w)) + SADDLE_ENERGY
        return jnp.where(reached, jnp.sqrt(jnp.maximum(square, 0)), jnp.inf)


def _check_open(argument: str, value: ArrayLike) -> Float[Array, ""]:
    array = finite(argument, value)
    if array.shape != ():
        raise ValueError(f"`{argument}` must be one number; got an array of shape {array.shape}.")
    got = None if is_traced(array) else array.item()
    return holds(array, (array > 0) & (array < 1), f"`{argument}` must lie strictly between 0 and 1", got)
