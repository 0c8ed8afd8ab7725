"""Trained Transformers on Markov chains: which of the two minima each seed ends in."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from .._backend.precision import Module
from ..companions import NextTokenLoss, OneLayerTransformer
from ..encoders import Average, Causal, Perceptron, SoftmaxAttention
from ..flows import flow, train
from ..measures import Gaussian
from ..models import Transformer
from ..objective import CrossEntropy, EveryRows, Objective
from ..prompts import MarkovChain, next_tokens, symbol_tokens

BIGRAM = 0.1
"""A run has found the bigram solution when its excess is below this share of that of the unigram solution."""
STANDARD = 0.02
RATE = 2e-3
"""The learning rate of arXiv:2406.03072's code."""
GUIDED = (0.5, 1.2)
"""e and |w| of the rank-one initialisations: the sign of w puts them in either basin."""


_SEQUENCES = 1024


@dataclass(frozen=True)
class Trained:
    """Where every seed of a family of initialisations ended.

    `excess[row, chain, seed]` is the mean divergence from the truth, as a share of that of the unigram model: 0 is the
    bigram solution, 1 the bad minimum.
    """

    rows: tuple[str, ...]
    chains: tuple[tuple[float, float], ...]
    excess: np.ndarray

    @property
    def success(self) -> np.ndarray:
        """The share of seeds that found the bigram solution, `[rows, chains]`."""
        return np.mean(self.excess < BIGRAM, axis=-1)

    def table(self) -> list[str]:
        """A line for each initialisation: seeds that succeeded, and the median excess, for each chain."""
        seeds = self.excess.shape[-1]
        found = np.sum(self.excess < BIGRAM, axis=-1)
        middle = np.median(self.excess, axis=-1)
        head = f"{'':<42}" + "".join(f"{f'({p:g}, {q:g})':>19}" for p, q in self.chains)
        return [head] + [
            f"{name:<42}"
            + "".join(f"{f'{n}/{seeds}  {m:.3f}':>19}" for n, m in zip(found[row], middle[row], strict=True))
            for row, name in enumerate(self.rows)
        ]


def adamw(steps: int, rate: float = RATE) -> optax.GradientTransformation:
    """The optimiser of arXiv:2406.03072's code: AdamW, one cycle with 2 % warm-up, decay 1e-3."""
    cycle = optax.warmup_cosine_decay_schedule(rate / 100, rate, max(1, steps // 50), steps, rate / 2000)
    return optax.adamw(cycle, b1=0.9, b2=0.95, weight_decay=1e-3)


def train_initialisations(
    key: PRNGKeyArray,
    chains: tuple[tuple[float, float], ...],
    scales: tuple[float, ...],
    *,
    seeds: int,
    steps: int,
    batch: int,
    length: int,
) -> Trained:
    """Standard initialisations of several scales, untied weights, and rank-one points in either basin."""
    key, init_key = jax.random.split(key)
    inits = jax.random.split(init_key, seeds)

    def standard(scale: float, tied: bool):
        draw = lambda k: OneLayerTransformer.standard(k, length=length, scale=scale, tied=tied)  # noqa: E731
        return eqx.filter_vmap(draw)(inits)

    def rank_one(side: int):
        e, w = GUIDED
        draw = lambda k: OneLayerTransformer.rank_one(k, e, side * w, length=length)  # noqa: E731
        return eqx.filter_vmap(draw)(inits)

    spread = [standard(scale, True) for scale in scales]
    excess = []
    for p, q in chains:
        side = 1 if p + q < 1 else -1
        tied = [*spread, rank_one(side), rank_one(-side)]
        loss = NextTokenLoss.drawn(MarkovChain.binary(p, q), key, batch=64, length=length)
        excess.append(_ends(loss, [*tied, standard(STANDARD, False)], key, steps, batch))
    e, w = GUIDED
    names = [f"standard, scale {scale:g}" for scale in scales]
    names += [f"rank one, e = {e:g}, |w| = {w:g}, {where}" for where in ("in basin", "outside")]
    names += [f"standard, scale {STANDARD:g}, untied"]
    return Trained(tuple(names), chains, np.stack(excess, axis=1))


def train_rates(
    key: PRNGKeyArray,
    chain: tuple[float, float],
    rates: tuple[float, ...],
    *,
    seeds: int,
    steps: int,
    batch: int,
    length: int,
) -> Trained:
    """The standard initialisation with tied weights, at several learning rates of AdamW."""
    key, init_key = jax.random.split(key)
    loss = NextTokenLoss.drawn(MarkovChain.binary(*chain), key, batch=64, length=length)
    draw = lambda k: OneLayerTransformer.standard(k, length=length)  # noqa: E731
    models = eqx.filter_vmap(draw)(jax.random.split(init_key, seeds))
    excess = [_ends(loss, [models], key, steps, batch, rate) for rate in rates]
    return Trained(tuple(f"standard, AdamW at rate {rate:g}" for rate in rates), (chain,), np.stack(excess))


def train_widths(
    key: PRNGKeyArray,
    chain: tuple[float, float],
    widths: tuple[int, ...],
    *,
    seeds: int,
    steps: int,
    batch: int,
    length: int,
    tau: float,
) -> Trained:
    """Ever wider feed-forward layers on learned, tied embeddings of standard scale: by AdamW, and by gradient flow."""
    key, init_key = jax.random.split(key)
    loss = NextTokenLoss.drawn(MarkovChain.binary(*chain), key, batch=64, length=length)
    adam, descent = [], []
    for width in widths:
        draw = lambda k, width=width: OneLayerTransformer.standard(k, length=length, hidden=width)  # noqa: E731
        models = eqx.filter_vmap(draw)(jax.random.split(init_key, seeds))
        adam.append(_ends(loss, [models], key, steps, batch))
        descent.append(np.asarray(_flowed(loss, models, tau))[None])
    names = [f"learned embedding, {w} neurons, {by}" for by in ("AdamW", "flow") for w in widths]
    return Trained(tuple(names), (chain,), np.stack(adam + descent))


def train_mean_field(
    key: PRNGKeyArray,
    chain: tuple[float, float],
    widths: tuple[int, ...],
    scales: tuple[float, ...],
    *,
    seeds: int,
    steps: int,
    batch: int,
    length: int,
) -> Trained:
    """[`wgf.Transformer`][]s of one layer and growing width on fixed one-hot tokens, logits read from the same rows."""
    source = MarkovChain.binary(*chain)
    data_key, probe_key, init_key = jax.random.split(key, 3)
    data = next_tokens(data_key, source, batch=_SEQUENCES, length=length)
    encoder = Average(
        SoftmaxAttention(data.token_dim, key_dim=2, mask=Causal()), Perceptron(data.token_dim, jax.nn.relu)
    )
    objective = Objective(data, 1e-5, loss=CrossEntropy(), readout=EveryRows(0, source.states))
    probe = NextTokenLoss.drawn(source, probe_key, batch=64, length=length)
    unigram = source.entropy() - source.entropy_rate()
    optimiser = optax.adam(optax.cosine_decay_schedule(2e-2, steps))

    @eqx.filter_jit
    def run(models, keys):
        arrays, rest = eqx.partition(models, eqx.is_array)

        def one(seed):
            arrays, key = seed
            solution = train(
                objective, eqx.combine(arrays, rest), optimiser, steps=steps, batch=batch, key=key, throw=False
            )
            return probe.excess(_Logits(solution.model_at(-1))) / unigram

        return jax.lax.map(one, (arrays, keys))

    rows, excess = [], []
    for width, scale in itertools.product(widths, scales):
        law = Gaussian(encoder, scale)
        draw = lambda k, law=law, width=width: Transformer(encoder, law.layered(1, width, k))  # noqa: E731
        keys = jax.random.split(init_key, seeds)
        rows.append(f"fixed embedding, M = {width}, scale {scale:g}")
        excess.append(np.asarray(run(eqx.filter_vmap(draw)(keys), keys))[None])
    return Trained(tuple(rows), (chain,), np.stack(excess))


class _Logits(Module):
    """A model of one-hot tokens as one of binary symbols: the logit of 1 is the difference of its first two rows."""

    model: Transformer

    def __call__(self, symbols: Int[Array, "batch length"]) -> Float[Array, "batch length"]:
        """The logits at every position."""
        tokens = self.model(symbol_tokens(symbols, 2))
        return tokens[:, 1] - tokens[:, 0]


def _ends(
    loss: NextTokenLoss, rows: Sequence[Any], key: PRNGKeyArray, steps: int, batch: int, rate: float = RATE
) -> np.ndarray:
    """The relative excess of trained models `[rows, seeds]`; seed by seed all rows see the same sequences.

    **Arguments:** `rows`: models with a leading axis `[seeds]`.
    """
    keys = jax.random.split(key, jax.tree.leaves(rows[0])[0].shape[0])
    return np.stack([np.asarray(_run(loss, models, keys, rate, steps, batch)) for models in rows])


@eqx.filter_jit
def _run(
    loss: NextTokenLoss, models: Any, keys: Key[Array, " seeds"], rate: float, steps: int, batch: int
) -> Float[Array, " seeds"]:
    """One program for all rows and chains: the optimiser is made in here, where it is no new function for each."""
    unigram = loss.chain.entropy() - loss.chain.entropy_rate()
    optimiser = adamw(steps, rate)

    def one(model, key):
        solution = train(loss, model, optimiser, steps=steps, batch=batch, key=key, throw=False)
        return loss.excess(solution.model_at(-1)) / unigram

    return eqx.filter_vmap(one)(models, keys)


@eqx.filter_jit
def _flowed(loss: NextTokenLoss, models: Any, tau: float) -> Float[Array, " seeds"]:
    """The relative excess after gradient flow on the probe's own sequences."""
    unigram = loss.chain.entropy() - loss.chain.entropy_rate()

    def one(model):
        solution = flow(loss, model, jnp.array([0.0, tau]), rtol=1e-3, throw=False)
        return loss.excess(solution.model_at(-1)) / unigram

    return eqx.filter_vmap(one)(models)
