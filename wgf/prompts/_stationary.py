"""The stationary law of a finite Markov chain, to full relative accuracy even for a chain that rarely moves."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def context_kernel(transition: Any) -> Any:
    """The transition matrix between contexts, `[S^k, S^k]`: the oldest symbol leaves and the next symbol enters.

    `transition` is `[S, ..., S]` with k + 1 axes, in NumPy or JAX. The result is of the same kind.
    """
    states, order = transition.shape[-1], transition.ndim - 1
    contexts = np.arange(states**order)
    follows = contexts[:, None] % states ** (order - 1) == contexts // states
    return transition.reshape(len(contexts), states)[:, contexts % states] * follows


def always_reached(kernel: Any) -> Any:
    """Which states are reached from every state, `[n]`: those of the closed class, or none if there are several.

    `kernel` is in NumPy or JAX, and the result is of the same kind. Subnormal entries count as zero, as they do in
    compiled programs.
    """
    count = kernel.shape[0]
    reached = (kernel >= jnp.finfo(kernel.dtype).tiny) | np.eye(count, dtype=bool)
    for _ in range(math.ceil(math.log2(count))):
        paths = reached.astype(np.float32)
        reached = paths @ paths > 0
    return reached.all(axis=0)


@jax.jit
def stationary_law(kernel: Float[Array, "states states"]) -> Float[Array, " states"]:
    r"""The law \( \pi K = \pi \) of a chain with one closed class, by elimination of one state after another.

    Without the last state the chain has the probabilities \( K_{ij} + K_{in} K_{nj} / \sum_{l < n} K_{nl} \), and
    \( \pi_n = \sum_{i<n} \pi_i K_{in} / \sum_{l < n} K_{nl} \). The method subtracts nothing. It also does not
    read the diagonal, where a chain that rarely moves has lost digits to rounding. Every entry of the law is therefore
    accurate to nearly all digits.

    Cost: O(n³) operations; reverse-mode derivatives keep n² numbers for each of n steps.

    **Source:** W. K. Grassmann, M. I. Taksar, D. P. Heyman, *Regenerative analysis and steady state distributions for
    Markov chains*, Operations Research 33 (1985).
    """
    count = kernel.shape[0]
    # The first state is one that every state reaches, so that no sum is zero.
    first = jnp.argmax(always_reached(kernel))
    order = (jnp.arange(count) + first) % count
    places = jnp.arange(count)

    def eliminate(step, kernel):
        last = count - 1 - step
        leaving = jnp.where(places < last, kernel[last], 0)
        entering = jnp.where(places < last, kernel[:, last], 0) / jnp.sum(leaving)
        return (kernel + entering[:, None] * leaving[None]).at[:, last].set(entering)

    def restore(last, law):
        mass = jnp.sum(law * reduced[:, last])
        return law.at[last].set(mass) / (1 + mass)

    reduced = jax.lax.fori_loop(0, count - 1, eliminate, kernel[order][:, order])
    law = jax.lax.fori_loop(1, count, restore, jnp.zeros(count, kernel.dtype).at[0].set(1))
    return jnp.roll(law, first)
