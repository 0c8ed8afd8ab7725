"""How many steps AdamW takes to leave the unigram solution, against its rate and against width."""

import math
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, Key, PRNGKeyArray

from ...companions import NextTokenLoss, OneLayerTransformer
from ...flows import train
from ...prompts import MarkovChain
from .._failures import mark, of_seeds
from ._training import RATE

ESCAPED = 0.5
"""A seed has escaped when its excess first falls below this share of the unigram solution's."""
_SAVES = 40
_WARM_UP = 20


@dataclass(frozen=True)
class Escapes:
    """Trainings at a constant rate that are watched on the way.

    `excess[row, seed, save]` is the excess after `steps[row, save]` steps, as a share of the unigram solution's.
    """

    rows: tuple[str, ...]
    rates: np.ndarray
    steps: np.ndarray
    excess: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """The steps after which each seed was first seen to have escaped, `[rows, seeds]`; infinite if it never was."""
        escaped = self.excess < ESCAPED
        seen = np.take_along_axis(self.steps, escaped.argmax(axis=-1), axis=-1).astype(float)
        return np.where(escaped.any(axis=-1), seen, np.inf)

    @property
    def median(self) -> np.ndarray:
        """The median of `first` over the seeds, `[rows]`; infinite if half of them never escaped."""
        return np.sort(self.first, axis=-1)[:, self.first.shape[-1] // 2]

    HEADS = ("", "rate", "seeds", "of steps", "least", "median", "most", "rate x median")

    def cells(self) -> list[list[str]]:
        """A row per training: the seeds that escaped, the steps that they took, and rate times the median."""
        found = zip(self.rows, self.rates, self.steps[:, -1], self.first, self.median, self.excess, strict=True)
        return [
            [
                name,
                f"{rate:g}",
                f"{np.isfinite(first).sum()}/{len(first)}",
                str(most),
                *map(_steps, (first.min(), middle, first.max())),
                "never" if np.isinf(middle) else f"{rate * middle:.2f}",
                mark(excess),
            ]
            for name, rate, most, first, middle, excess in found
        ]

    def failures(self) -> list[str]:
        """A line for each row with seeds that failed."""
        return [line for row, excess in zip(self.rows, self.excess, strict=True) for line in of_seeds(row, excess)]


def _steps(count: float) -> str:
    return "never" if np.isinf(count) else f"{count:.0f}"


def train_escapes(
    key: PRNGKeyArray,
    chain: tuple[float, float],
    rates: tuple[float, ...],
    widths: tuple[int, ...],
    *,
    seeds: int,
    batch: int,
    length: int,
    reach: float,
) -> Escapes:
    """Train from the standard initialisation with tied weights, by AdamW at constant rates after a short warm-up.

    First the default width at all rates, then all widths at the rate of arXiv:2406.03072's code. All see the same
    sequences. A training ends when rate times steps is `reach`.
    """
    key, init_key = jax.random.split(key)
    loss = NextTokenLoss.drawn(MarkovChain.binary(*chain), key, batch=64, length=length)
    inits, keys = jax.random.split(init_key, seeds), jax.random.split(key, seeds)
    trainings = [(f"AdamW at rate {rate:g}", rate, None) for rate in rates]
    trainings += [(f"AdamW, {width} neurons", RATE, width) for width in widths]
    steps, excess = [], []
    for _, rate, width in trainings:
        draw = lambda k, width=width: OneLayerTransformer.standard(k, length=length, hidden=width)  # noqa: E731
        every = max(1, math.ceil(reach / rate / _SAVES))
        steps.append(every * np.arange(_SAVES + 1))
        excess.append(np.asarray(_watched(loss, eqx.filter_vmap(draw)(inits), keys, rate, every, batch)))
    names, used, _ = zip(*trainings, strict=True)
    return Escapes(names, np.array(used), np.stack(steps), np.stack(excess))


@eqx.filter_jit
def _watched(
    loss: NextTokenLoss, models: OneLayerTransformer, keys: Key[Array, " seeds"], rate: float, every: int, batch: int
) -> Float[Array, "seeds saves"]:
    """The excess of every seed at the start and after each `every` steps."""
    unigram = loss.chain.entropy() - loss.chain.entropy_rate()

    def warmed(step: ArrayLike) -> Array:
        return rate * jnp.minimum(1, (jnp.asarray(step) + 1) / _WARM_UP)

    optimiser = optax.adamw(warmed, b1=0.9, b2=0.95, weight_decay=1e-3)
    options = {"steps": _SAVES * every, "save_every": every, "batch": batch, "throw": False}

    def one(model, key):
        solution = train(loss, model, optimiser, key=key, **options)
        arrays, rest = eqx.partition(solution.models, eqx.is_array)
        return jax.lax.map(lambda saved: loss.excess(eqx.combine(saved, rest)), arrays) / unigram

    return eqx.filter_vmap(one)(models, keys)
