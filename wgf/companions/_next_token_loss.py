"""The next-token loss of models of binary sequences."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._backend.precision import Module
from .._checks import at_least, instance, numbered, numbers, shown
from .._random import purpose
from ..prompts import MarkovChain

BinaryModel = Callable[[Int[Array, "batch length"]], Float[Array, "batch length"]]


class NextTokenLoss(Module):
    r"""The mean cross-entropy of next symbols, \( -\frac{1}{BN} \sum_{b,n} \log P_\theta(x_{n+1} | x_1 \dots x_n) \).

    It is an objective for [`wgf.flow`][] and [`wgf.train`][], for models that map symbols `[B, N]` to logits `[B, N]`.
    With `batch=`, every step of `train` draws new sequences from the chain.

    **Arguments:**

    - `chain`: the source, over two states.
    - `symbols`: sequences of N + 1 symbols, `[B, N+1]`.

    **Raises:** `ValueError` if the chain has more than two states, the sequences have fewer than two symbols, or a
    symbol is neither 0 nor 1.
    """

    chain: MarkovChain
    symbols: Int[Array, "batch length"]

    def __init__(self, chain: MarkovChain, symbols: Int[Array, "batch length"]):
        instance("chain", chain, MarkovChain, "a wgf.prompts.MarkovChain")
        if chain.states != 2:
            raise ValueError(f"`chain` must have two states; got {chain.states}.")
        symbols = symbols if isinstance(symbols, np.ndarray) else numbers("symbols", symbols)
        if symbols.ndim != 2 or symbols.shape[1] < 2:
            raise ValueError(f"`symbols` must have shape [B, N + 1] with N >= 1; got shape {symbols.shape}.")
        self.chain, self.symbols = chain, numbered("symbols", symbols, 2, "symbols")

    @classmethod
    def drawn(cls, chain: MarkovChain, key: PRNGKeyArray, *, batch: int, length: int) -> "NextTokenLoss":
        """The loss on `batch` sequences drawn from the chain, with `length` predictions per sequence."""
        instance("chain", chain, MarkovChain, "a wgf.prompts.MarkovChain")
        key = purpose(key, "companions.NextTokenLoss.drawn")
        return cls(chain, chain.sample(key, batch, at_least("length", length, 1) + 1))

    def __call__(self, model: BinaryModel) -> Float[Array, ""]:
        """The loss on the sequences."""
        if not callable(model):
            raise ValueError(f"`model` must be a function of symbols [B, N] to logits [B, N]; got {shown(model)}.")
        return jnp.mean(optax.sigmoid_binary_cross_entropy(model(self.symbols[:, :-1]), self.symbols[:, 1:]))

    def minibatch(self, key: PRNGKeyArray, size: int) -> "NextTokenLoss":
        """The loss on `size` new sequences of the same length."""
        key = purpose(key, "companions.NextTokenLoss.minibatch")
        # A chain's symbols are valid, so this skips the check of `__init__`, which each step of training would repeat.
        return eqx.tree_at(lambda loss: loss.symbols, self, self.chain.sample(key, size, self.symbols.shape[1]))

    def excess(self, model: BinaryModel) -> Float[Array, ""]:
        r"""The mean divergence of the model's prediction from the truth, \( \mathrm{KL}(P(\cdot|x) \,\|\, P_\theta) \).

        In expectation over the next symbol, this is the loss minus the entropy rate: the part that can still be
        learnt, without the noise of the labels. The first k − 1 positions lack a full context and are left out.
        """
        laws = self.chain.next_laws(self.symbols[:, :-1])
        logits = model(self.symbols[:, :-1])[:, self.chain.order - 1 :]
        predicted = jnp.stack([jax.nn.log_sigmoid(-logits), jax.nn.log_sigmoid(logits)], axis=-1)
        return jnp.mean(optax.kl_divergence(predicted, laws))
