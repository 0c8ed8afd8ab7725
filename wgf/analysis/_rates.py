"""Rates: the fall of a gap with depth and width, fitted with intervals and compared with the forms of theory."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import ArrayLike, Float

from .._checks import at_least, check_memory, on_host_in_float64

_MOST_EXPONENT = 3.0
FORMS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "1/L + sqrt(log L / M)": lambda depth, width: np.sqrt(np.log(depth) / width),
    "1/L + L^(-1/3) M^(-1/2)": lambda depth, width: depth ** (-1 / 3) * width**-0.5,
    "1/L + (L M)^(-1/2)": lambda depth, width: (depth * width) ** -0.5,
}
"""The second terms of the forms in L and M that `fit_rates` judges; the first is always 1/L."""


@dataclass(frozen=True)
class Verdict:
    r"""The fit of a form \( a/L + b\,s(L, M) \): a, b ≥ 0 are free, and the exponents are those of the form.

    - `deviation`: root mean square of log(gap / form): 0.1 is 10 %.
    - `p_value`: the probability of deviations this large from the seeds' scatter alone.
    - `trend`: the slope of log(gap / form) against log(L M). Below 0, the gap falls faster than the form.
    """

    form: str
    a: float
    b: float
    deviation: float
    p_value: float
    trend: float

    @property
    def fits(self) -> bool:
        """Whether the form is within the seeds' scatter, at a level of 5 %."""
        return self.p_value > 0.05

    def __str__(self) -> str:
        state = "fits" if self.fits else "falls faster" if self.trend < 0 else "falls more slowly"
        detail = f"off by {100 * self.deviation:.0f} %, p = {self.p_value:.2g}, trend {self.trend:+.3f}"
        return f"{self.form}: {state} ({detail})"


@dataclass(frozen=True)
class RateFit:
    r"""The fit \( a\,L^{-\alpha} + b\,L^{-\beta} M^{-\gamma} \).

    - `values`: (a, α, b, β, γ); `low`, `high`: the ends of their 95 % intervals, by the bootstrap over seeds.
    - `deviation`: root mean square of log(gap / fit).
    - `verdicts`: one per form of theory.
    """

    values: Float[np.ndarray, "5"]
    low: Float[np.ndarray, "5"]
    high: Float[np.ndarray, "5"]
    deviation: float
    verdicts: tuple[Verdict, ...]

    def __call__(self, depth: ArrayLike, width: ArrayLike) -> np.ndarray:
        """The fitted gap at depths L and widths M."""
        return _curve(self.values, np.asarray(depth, float), np.asarray(width, float))

    def __str__(self) -> str:
        names = ("a", "alpha", "b", "beta", "gamma")
        # Exponents at the bound of the search are zero up to rounding.
        columns = (np.where(np.abs(x) < 1e-6, 0, x) for x in (self.values, self.low, self.high))
        parts = zip(names, *columns, strict=True)
        shown = ", ".join(f"{name} {value:.2g} [{low:.2g}, {high:.2g}]" for name, value, low, high in parts)
        return f"off by {100 * self.deviation:.0f} %; {shown}"


def fit_rates(
    depths: ArrayLike, widths: ArrayLike, gaps: Float[ArrayLike, "sizes seeds"], *, resamples: int = 200, seed: int = 0
) -> RateFit:
    r"""Fit \( a\,L^{-\alpha} + b\,L^{-\beta} M^{-\gamma} \) to gaps, and judge the forms of [`wgf.analysis.FORMS`][].

    The gap at a size is its root mean square over seeds. Logarithms are fitted by least squares, so relative errors
    count equally at all sizes. Intervals are percentiles over resampled seeds. The search bounds exponents by 0 and 3;
    the data do not determine an exponent whose interval covers that whole range.

    **Arguments:**

    - `depths`, `widths`: L and M of each size, `[sizes]`, at least 6 sizes.
    - `gaps`: a positive gap per size and seed, `[sizes, seeds]`, at least 3 seeds.
    - `resamples`, `seed`: the number of bootstrap samples, and the seed that draws them.

    **Returns:** [`wgf.analysis.RateFit`][].

    **Raises:** `ValueError` if there are too few sizes or seeds, shapes do not fit, or a gap is not positive.

    Computed on the host: not for `jit`.
    """
    depths, widths, gaps = (
        on_host_in_float64(name, x) for name, x in (("depths", depths), ("widths", widths), ("gaps", gaps))
    )
    if gaps.ndim != 2 or depths.shape != (gaps.shape[0],) or widths.shape != depths.shape:
        shapes = depths.shape, widths.shape, gaps.shape
        raise ValueError(f"`depths`, `widths` and `gaps` must be [sizes], [sizes] and [sizes, seeds]; got {shapes}.")
    if gaps.shape[0] < 6 or gaps.shape[1] < 3:
        raise ValueError(f"`gaps` must hold at least 6 sizes and 3 seeds; got {gaps.shape}.")
    for name, values in (("depths", depths), ("widths", widths), ("gaps", gaps)):
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"`{name}` must be positive and finite; got {values.min():g} to {values.max():g}.")
    resamples, seed = at_least("resamples", resamples, 2), at_least("seed", seed, 0)
    check_memory(each=gaps.size, resamples=resamples)
    draws = np.random.default_rng(seed).integers(gaps.shape[1], size=(resamples, gaps.shape[1]))
    means = [np.sqrt(np.mean(gaps[:, draw] ** 2, axis=1)) for draw in draws]
    gap = np.sqrt(np.mean(gaps**2, axis=1))
    values = _fit(depths, widths, gap, None)
    spread = np.array([_fit(depths, widths, mean, values) for mean in means])
    low, high = np.percentile(spread, (2.5, 97.5), axis=0)
    residuals = np.log(gap / _curve(values, depths, widths))
    # One relative scatter for all sizes, because a few seeds do not determine one per size. Resampling n seeds loses a
    # share 1/n of the variance.
    seeds = gaps.shape[1]
    variance = float(np.mean(np.var(np.log(means), axis=0, ddof=1))) * seeds / (seeds - 1)
    verdicts = tuple(_judge(form, depths, widths, gap, variance, gaps.shape[0] * (seeds - 1)) for form in FORMS)
    return RateFit(values, low, high, float(np.sqrt(np.mean(residuals**2))), verdicts)


def _curve(values: np.ndarray, depth: np.ndarray, width: np.ndarray) -> np.ndarray:
    a, alpha, b, beta, gamma = values
    return a * depth**-alpha + b * depth**-beta * width**-gamma


def _fit(depths: np.ndarray, widths: np.ndarray, gap: np.ndarray, start: np.ndarray | None) -> np.ndarray:
    """The best of several least-squares fits from fixed starts, or the fit from a given start."""

    def residuals(x: np.ndarray) -> np.ndarray:
        return np.log(_curve(np.where(_POSITIVE, np.exp(x), x), depths, widths) / gap)

    starts = [start] if start is not None else [_start(depths, widths, gap, *e) for e in _STARTS]
    bounds = (np.where(_POSITIVE, -40, 0), np.where(_POSITIVE, 10, _MOST_EXPONENT))
    found = []
    for values in starts:
        x = np.where(_POSITIVE, np.log(np.maximum(values, 1e-12)), values)
        found.append(scipy.optimize.least_squares(residuals, np.clip(x, *bounds), bounds=bounds))
    x = min(found, key=lambda fit: fit.cost).x
    return np.where(_POSITIVE, np.exp(x), x)


# The factors among (a, α, b, β, γ), which are searched for on a logarithmic scale.
_POSITIVE = np.array([True, False, True, False, False])
_STARTS = ((1.0, 0.5, 0.5), (1.0, 1 / 3, 0.5), (2.0, 0.5, 0.5), (1.0, 0.1, 0.5))


def _start(depths, widths, gap, alpha: float, beta: float, gamma: float) -> np.ndarray:
    a, b = _factors(depths**-alpha, depths**-beta * widths**-gamma, gap)
    return np.array([a, alpha, b, beta, gamma])


def _factors(first: np.ndarray, second: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """The a, b ≥ 0 that minimise the relative deviation of a·first + b·second from the gap."""
    return scipy.optimize.nnls(np.stack([first, second], axis=1) / gap[:, None], np.ones(len(gap)))[0]


def _judge(
    form: str, depths: np.ndarray, widths: np.ndarray, gap: np.ndarray, variance: float, freedom: int
) -> Verdict:
    """Fit a form's two factors, and test the lack of fit against the scatter with an F-test."""
    second = FORMS[form](depths, widths)
    a, b = _factors(1 / depths, second, gap)
    residuals = np.log(gap / (a / depths + b * second))
    ratio = float(np.sum(residuals**2)) / (len(gap) - 2) / variance
    trend = float(np.polyfit(np.log(depths * widths), residuals, 1)[0])
    p_value = float(scipy.stats.f.sf(ratio, len(gap) - 2, freedom))
    return Verdict(form, float(a), float(b), float(np.sqrt(np.mean(residuals**2))), p_value, trend)
