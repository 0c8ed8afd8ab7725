"""The rate of a loss that falls exponentially, and the quality of the exponential fit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from jaxtyping import ArrayLike

from .._checks import on_host_in_float64, one_number, shown


@dataclass(frozen=True)
class LinearRate:
    """A straight line fitted to the logarithm of the loss.

    - `rate`: −d log L/dτ, its slope.
    - `r_squared`: the share of the variance of log L that the line explains, 0 to 1.
    - `span`: the decades that the loss falls within the window of the fit.
    - `fallen`: the decades that the loss falls in total.
    - `window`: the first and last index of the fit.
    """

    rate: float
    r_squared: float
    span: float
    fallen: float
    window: tuple[int, int]


def linear_rate(
    times: ArrayLike,
    losses: ArrayLike,
    *,
    transient: float = 1.0,
    decades: float = 4.0,
) -> LinearRate:
    r"""Fit \( \log L(\tau) = a - r \tau \) by least squares, over a window chosen from the losses.

    The window starts where the loss has first fallen by `transient` decades. It ends where the loss has fallen by
    `decades` more, or at the last time. A loss that never falls by `transient` decades is fitted over the later half of
    the times.

    **Arguments:**

    - `times`, `losses`: τ and L > 0, `[saves]`, at least three.
    - `transient`: the first decades of fall, which are left out because faster modes are still present.
    - `decades`: the decades of fall within the window.

    **Returns:** [`wgf.analysis.LinearRate`][].

    **Raises:** `ValueError` if there are fewer than three losses, one that is not positive and finite, or times do not
    increase.

    Computed on the host: not for `jit`.
    """
    times, losses = on_host_in_float64("times", times), on_host_in_float64("losses", losses)
    if losses.ndim != 1 or times.shape != losses.shape or not np.all(np.diff(times) > 0):
        raise ValueError(
            f"`times` and `losses` must be vectors of one length, and times increase; got {shown(times)} and "
            f"{shown(losses)}."
        )
    for name, value in (("transient", transient), ("decades", decades)):
        if not 0 <= one_number(name, value) < np.inf:
            raise ValueError(f"`{name}` must be finite and not negative; got {value}.")
    if losses.size < 3 or not np.all(np.isfinite(losses) & (losses > 0)):
        raise ValueError(f"`losses` must be at least three positive finite numbers; got {shown(losses)}.")
    fallen = np.log10(losses[0] / losses)
    last = len(losses) - 1
    end = max(2, _first(fallen >= transient + decades, last))
    start = min(end - 2, _first(fallen >= transient, last // 2))
    chosen = slice(start, end + 1)
    fit: Any = scipy.stats.linregress(times[chosen], np.log(losses[chosen]))
    return LinearRate(
        rate=float(-fit.slope),
        r_squared=float(fit.rvalue**2),
        span=float(fallen[end] - fallen[start]),
        fallen=float(fallen.max()),
        window=(start, end),
    )


def _first(condition: np.ndarray, otherwise: int) -> int:
    return int(np.argmax(condition)) if condition.any() else otherwise
