"""Training on Markov chains: one-layer and mean-field Transformers from many seeds."""

import itertools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from ..._backend.precision import Module
from ...companions import NextTokenLoss, OneLayerTransformer
from ...encoders import Average, Causal, Perceptron, SoftmaxAttention
from ...flows import flow, train
from ...measures import Gaussian
from ...models import Transformer
from ...objective import CrossEntropy, EveryRows, Objective
from ...prompts import MarkovChain, next_tokens, symbol_tokens
from ._trained import Trained

STANDARD = 0.02
"""The standard deviation of the standard initialisation."""
RATE = 2e-3
"""The learning rate of arXiv:2406.03072's code."""
GUIDED = (0.5, 1.2)
"""e and |w| of the rank-one initialisations. The sign of w selects the basin."""
_SEQUENCES = 1024
"""Training sequences of the mean-field Transformer."""


def adamw(steps: int, rate: float = RATE) -> optax.GradientTransformation:
    """The optimiser of arXiv:2406.03072's code: AdamW with one cycle, 2 % warm-up and decay 1e-3."""
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
    """Train from standard initialisations of several scales, from rank-one points in both basins, and without tying."""
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
    """Train from the standard initialisation with tied weights, at several learning rates of AdamW."""
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
    """Train feed-forward layers of several widths on learned, tied embeddings, by AdamW and by gradient flow."""
    key, init_key = jax.random.split(key)
    loss = NextTokenLoss.drawn(MarkovChain.binary(*chain), key, batch=64, length=length)
    adam, descent = [], []
    for width in widths:
        draw = lambda k, width=width: OneLayerTransformer.standard(k, length=length, hidden=width)  # noqa: E731
        models = eqx.filter_vmap(draw)(jax.random.split(init_key, seeds))
        adam.append(_ends(loss, [models], key, steps, batch))
        descent.append(np.asarray(_flow_seeds(loss, models, tau))[None])
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
    """Train a one-layer [`wgf.Transformer`][] of several widths and scales on fixed one-hot tokens.

    The logits are read from the rows of the one-hot code.
    """
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
    """Wraps a model of one-hot tokens as a model of binary symbols.

    The logit of symbol 1 is the difference of the first two rows.
    """

    model: Transformer

    def __call__(self, symbols: Int[Array, "batch length"]) -> Float[Array, "batch length"]:
        """The logits at every position."""
        tokens = self.model(symbol_tokens(symbols, 2))
        return tokens[:, 1] - tokens[:, 0]


def _ends(
    loss: NextTokenLoss, rows: Sequence[Any], key: PRNGKeyArray, steps: int, batch: int, rate: float = RATE
) -> np.ndarray:
    """The relative excess of trained models, `[rows, seeds]`. All rows of a seed see the same sequences.

    **Arguments:** `rows`: models with a leading axis `[seeds]`.
    """
    keys = jax.random.split(key, jax.tree.leaves(rows[0])[0].shape[0])
    return np.stack([np.asarray(_train_seeds(loss, models, keys, rate, steps, batch)) for models in rows])


@eqx.filter_jit
def _train_seeds(
    loss: NextTokenLoss, models: Any, keys: Key[Array, " seeds"], rate: float, steps: int, batch: int
) -> Float[Array, " seeds"]:
    """Train every seed, and return its relative excess.

    The optimiser is created inside, so that all rows and chains share one compiled program. An optimiser passed as an
    argument would be a new function for each row.
    """
    unigram = loss.chain.entropy() - loss.chain.entropy_rate()
    optimiser = adamw(steps, rate)

    def one(model, key):
        solution = train(loss, model, optimiser, steps=steps, batch=batch, key=key, throw=False)
        return loss.excess(solution.model_at(-1)) / unigram

    return eqx.filter_vmap(one)(models, keys)


@eqx.filter_jit
def _flow_seeds(loss: NextTokenLoss, models: Any, tau: float) -> Float[Array, " seeds"]:
    """The relative excess after gradient flow on the probe's own sequences."""
    unigram = loss.chain.entropy() - loss.chain.entropy_rate()

    def one(model):
        solution = flow(loss, model, jnp.array([0.0, tau]), rtol=1e-3, throw=False)
        return loss.excess(solution.model_at(-1)) / unigram

    return eqx.filter_vmap(one)(models)
