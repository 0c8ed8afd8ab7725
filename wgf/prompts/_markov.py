"""Markov chains of any order over a finite alphabet, as a source of token sequences."""

import jax
import jax.numpy as jnp
from jax.scipy.special import entr
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from .._backend.compat import is_traced
from .._backend.compiled import compiled
from .._backend.precision import Module
from .._checks import at_least, check_memory, finite, holds, numbered, on_host, random_key, shown
from .._random import purpose
from ._stationary import always_reached, context_kernel, stationary_law


class MarkovChain(Module):
    r"""A stationary Markov chain of order k over S states, \( P(x_{n+1} = j \mid x_{n-k+1}, \dots, x_n) \).

    **Arguments:**

    - `transition`: the transition tensor with k + 1 axes of size S: one per symbol of the context, the oldest first,
      and the next symbol last. `[S, S]` is a chain of order 1. Entries are not negative; the last axis sums to 1.

    **Raises:** `ValueError` if the shape does not fit, an entry is negative or not finite, a row does not sum to 1, or
    the stationary law is not unique, because the chain can be trapped in one of several sets of contexts. Transient
    contexts, periodic chains and chains that rarely move are allowed.

    Logarithms are natural: entropies are in nats per symbol. Cost of the stationary law: O(S^(3k)).

    **Source:** binary chains of order 1 as in arXiv:2406.03072, section 2.1.
    """

    transition: Float[Array, "..."]

    def __init__(self, transition: ArrayLike):
        transition = _check_transition(transition)
        unique = always_reached(context_kernel(on_host(transition))).any()
        self.transition = holds(transition, unique, "`transition` must have one stationary law", "several")

    @classmethod
    def binary(cls, p: ArrayLike, q: ArrayLike) -> "MarkovChain":
        """The chain of order 1 on {0, 1} with switching probabilities P(1|0) = p and P(0|1) = q.

        **Raises:** `ValueError` unless p and q lie in [0, 1] and are not both 0.
        """
        p, q = (check_probability(name, value) for name, value in (("p", p), ("q", q)))
        return cls(jnp.stack([jnp.stack([1 - p, p]), jnp.stack([q, 1 - q])]))

    @property
    def states(self) -> int:
        """The size S of the alphabet."""
        return self.transition.shape[-1]

    @property
    def order(self) -> int:
        """The length k of the context that the next symbol depends on."""
        return self.transition.ndim - 1

    def stationary(self) -> Float[Array, "..."]:
        """The stationary law of k consecutive symbols, k axes of size S."""
        return stationary_law(context_kernel(self.transition)).reshape(self.transition.shape[:-1])

    def marginal(self) -> Float[Array, " states"]:
        """The stationary law π of one symbol."""
        return jnp.sum(self.stationary(), axis=tuple(range(self.order - 1)))

    def entropy(self) -> Float[Array, ""]:
        r"""The entropy \( H(\pi) \) of one symbol: the least loss of a model that ignores the context (unigram)."""
        return jnp.sum(entr(self.marginal()))

    def entropy_rate(self) -> Float[Array, ""]:
        r"""The entropy rate \( \sum_c \pi(c)\, H(P(\cdot \mid c)) \): the least loss of any model."""
        return jnp.sum(self.stationary()[..., None] * entr(self.transition))

    def sample(self, key: PRNGKeyArray, batch: int, length: int) -> Int[Array, "batch length"]:
        """Draw `batch` independent stationary sequences of `length` symbols.

        **Raises:** `ValueError` if a count is below 1.
        """
        batch, length = at_least("batch", batch, 1), at_least("length", length, 1)
        check_memory(batch=batch, length=length)
        return self._sample(random_key("key", key), batch, length)

    @compiled
    def _sample(self, key: PRNGKeyArray, batch: int, length: int) -> Int[Array, "batch length"]:
        states, contexts = self.states, self.states**self.order
        start_key, key = jax.random.split(purpose(key, "prompts.MarkovChain.sample"))
        start = _draw(jnp.cumsum(self.stationary().ravel())[None], jax.random.uniform(start_key, (batch,)))
        # The context is one number in base S, whose last digit is the newest symbol.
        ladders = jnp.cumsum(self.transition, axis=-1).reshape(contexts, states)

        def step(context, uniform):
            symbol = _draw(ladders[context], uniform)
            return (context * states + symbol) % contexts, symbol

        digits = states ** jnp.arange(self.order - 1, -1, -1)
        first = start[:, None] // digits[None] % states
        later = jax.lax.scan(step, start, jax.random.uniform(key, (max(0, length - self.order), batch)))[1]
        return jnp.concatenate([first, later.T], axis=1)[:, :length]

    def next_laws(self, tokens: Int[Array, "*batch length"]) -> Float[Array, "*batch predicted states"]:
        """The true law of the next symbol at each position with a full context: all but k − 1 positions.

        **Raises:** `ValueError` if a token is not one of the symbols 0 to S − 1, or there are fewer than k tokens.
        """
        tokens = numbered("tokens", tokens, self.states, "symbols")
        if tokens.ndim == 0:
            raise ValueError("`tokens` must have an axis of positions; got one number.")
        windows = tokens.shape[-1] - self.order + 1
        if windows < 1:
            raise ValueError(f"`tokens` must hold at least {self.order} symbols, one context; got {tokens.shape[-1]}.")
        context = tuple(tokens[..., i : i + windows] for i in range(self.order))
        return self.transition[context]


def check_probability(argument: str, value: ArrayLike) -> Float[Array, ""]:
    """Return the scalar `value` as an array; raise unless it lies in [0, 1]."""
    array = finite(argument, value)
    if array.shape != ():
        raise ValueError(f"`{argument}` must be one number; got an array of shape {array.shape}.")
    got = None if is_traced(array) else array.item()
    return holds(array, (array >= 0) & (array <= 1), f"`{argument}` must be a probability, 0 to 1", got)


def _draw(ladder: Float[Array, "*batch states"], uniform: Float[Array, " batch"]) -> Int[Array, " batch"]:
    """Invert cumulative sums at uniform numbers; the last state takes the remainder that rounding leaves."""
    return jnp.sum(uniform[..., None] >= ladder[..., :-1], axis=-1)


def _check_transition(transition: ArrayLike) -> Array:
    transition = finite("transition", transition)
    if transition.ndim < 2 or len(set(transition.shape)) != 1 or transition.shape[0] < 2:
        raise ValueError(
            "`transition` must have k + 1 >= 2 axes of the same size S >= 2 (contexts, then the next symbol); got "
            f"shape {transition.shape}."
        )
    valid = jnp.all(transition >= 0) & jnp.all(jnp.abs(transition.sum(axis=-1) - 1) < 1e-4)
    got = (
        None
        if is_traced(valid, transition)
        else f"least entry {float(transition.min())}, sums {shown(transition.sum(-1).tolist())}"
    )
    return holds(transition, valid, "`transition` must be non-negative with sum 1 over its last axis", got)
