"""A quantity with an error bar, from independent parts of a sample and from the whole sample."""

import equinox as eqx
import jax.numpy as jnp
import scipy
from jaxtyping import Array, Float

from .._backend.precision import Module
from .._checks import at_least, one_number


class Estimate(Module):
    r"""A functional Y of a law, estimated from a sample of R independent parts, with its error.

    Let \( Y_r \) be its value at part r alone, \( \bar Y \) their mean, s their standard deviation and Y the value at
    all parts together (`value`). For a smooth functional, the fluctuation of a part enters Y with weight 1/R: linearly
    to first order, and in squares to second order. This gives

    \[ \mathrm{se}(Y) = s / \sqrt R, \qquad \mathrm{bias}(Y) = (\bar Y - Y) / (R - 1), \]

    since \( E\bar Y - Y_\infty = R\,(EY - Y_\infty) \): the covariance of R independent parts together is 1/R of that
    of one part. This holds for any randomised sampling (quasi-random, symmetric), at any rate in the width; a
    comparison of two widths would need the rate. Terms that are linear in the parts cancel in the bias, so its noise
    is of second order too. If the linear term vanishes, as in Q near a minimum, the interval covers the truth somewhat
    less often than its nominal confidence.

    - `value`: Y, `[*shape]`.
    - `members`: the \( Y_r \), `[R, *shape]`.

    **Source:** B. Efron, R. J. Tibshirani, *An Introduction to the Bootstrap*, 1993, chapters 10 and 11 (bias and
    standard error by the jackknife; for R = 2 these are the jackknife's); A. B. Owen, *Monte Carlo Theory, Methods and
    Examples*, chapter 17 (replicates of randomised quasi-Monte Carlo).
    """

    value: Float[Array, "*shape"]
    members: Float[Array, "replicates *shape"]

    @property
    def mean(self) -> Float[Array, "*shape"]:
        """The mean over the parts. Its bias is R times that of `value`."""
        return jnp.mean(self.members, axis=0)

    @property
    @eqx.filter_jit
    def standard_error(self) -> Float[Array, "*shape"]:
        """One standard deviation of `value`."""
        return jnp.std(self.members, axis=0, ddof=1) / jnp.sqrt(self.members.shape[0])

    @property
    @eqx.filter_jit
    def bias(self) -> Float[Array, "*shape"]:
        """The estimated bias of `value`: its expectation minus the truth."""
        return (self.mean - self.value) / (self.members.shape[0] - 1)

    @property
    def error(self) -> Float[Array, "*shape"]:
        """The root mean square error of `value`, from its standard error and bias."""
        return jnp.hypot(self.standard_error, self.bias)

    @eqx.filter_jit
    def interval(self, confidence: float = 0.95) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        """The ends of the confidence interval, `value` ± Student's quantile times the standard error.

        **Raises:** `ValueError` unless the confidence lies between 0 and 1.
        """
        half = student_quantile(self.members.shape[0], confidence) * self.standard_error
        return self.value - half, self.value + half


def student_quantile(replicates: int, confidence: float = 0.95) -> float:
    """Student's quantile with R − 1 degrees of freedom: the half width of an interval, in estimated standard errors.

    | replicates R | 2 | 4 | 8 | many |
    |---|---|---|---|---|
    | quantile at 95 % | 12.7 | 3.18 | 2.36 | 1.96 |

    **Raises:** `ValueError` unless the confidence lies between 0 and 1.

    Not for `jit`: the numbers are known.
    """
    replicates = at_least("replicates", replicates, 2)
    if not 0 < one_number("confidence", confidence) < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1; got {confidence}.")
    return float(scipy.stats.t.ppf((1 + confidence) / 2, replicates - 1))
