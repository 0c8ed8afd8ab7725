"""The discrete adjoint of a limit whose particles belong to the stages of its depth solve."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..encoders import AbstractEncoder
from ..measures import Staged
from ..measures._staged import node_of_stages
from ..solvers._constant_steps import Field, march_by_stages
from ._adjoint import AbstractAdjoint, Batch


class StageAdjoint(AbstractAdjoint):
    r"""Tokens and costates at the stages of a depth solve, exact for the solve itself.

    Stage s has the slope \( k_s = \int g(T_s, \theta)\,\rho(d\theta, t_s) \). Its costate is
    \( p_s = (\partial\,\mathrm{loss} / \partial k_s) / w_i \), with the weight w of its node i. A mass added at node i
    then changes the loss at the rate \( \sum_{s \to i} \langle g(T_s, \theta), p_s \rangle \) per unit of depth. With
    small steps these are T(t) and p(t). At any other depth they are those of the nearest node.

    - `encoder`: g.
    - `depths`: the nodes, `[nodes]`.
    - `stage_tokens`, `stage_costates`: of the stages that share a node, `[nodes, shared, B, D, N+1]`. Where fewer
      stages share it, the costates are zero.

    **Source:** W. W. Hager, *Runge–Kutta methods in optimal control and the transformed adjoint system*, Numer. Math.
    87 (2000).
    """

    encoder: AbstractEncoder
    depths: Float[Array, " nodes"]
    stage_tokens: Float[Array, "nodes shared batch token_dim length"]
    stage_costates: Float[Array, "nodes shared batch token_dim length"]

    def tokens(self, depth: ArrayLike) -> Batch:
        """The tokens of the first stage at the nearest node."""
        return self.stage_tokens[self._node(depth), 0]

    def costates(self, depth: ArrayLike) -> Batch:
        """The costates of the nearest node, the sum over its stages."""
        return jnp.sum(self.stage_costates[self._node(depth)], axis=0)

    def pairing(
        self,
        particles: PyTree[Array],
        masses: Float[Array, " count"],
        depth: ArrayLike,
        prompt_weights: Float[Array, " batch"],
    ) -> Float[Array, ""]:
        """Pair the encoder's mean with the costate at each stage of the nearest node."""
        node = self._node(depth)

        def at_stage(tokens, costates):
            mean = self.encoder.mean(particles, masses, tokens)
            return jnp.sum(prompt_weights * jnp.sum(mean * costates, axis=(1, 2)))

        stages = zip(self.stage_tokens[node], self.stage_costates[node], strict=True)
        return sum((at_stage(*stage) for stage in stages), jnp.zeros((), prompt_weights.dtype))

    def _node(self, depth: ArrayLike) -> Array:
        return jnp.argmin(jnp.abs(self.depths - depth))


def stage_adjoint(
    encoder: AbstractEncoder, measure: Staged, field: Field, tokens: Batch, terminal: Callable[[Batch], Batch]
) -> StageAdjoint:
    """Solve forward through the stages, then back by the transpose of that very solve."""
    node = node_of_stages(measure.solver, measure.steps)

    def solve(offsets):
        return march_by_stages(field, measure.solver, measure.steps, tokens, offsets)

    end, pull, passed = jax.vjp(solve, jnp.zeros((*node.shape, *tokens.shape), tokens.dtype), has_aux=True)
    (slopes,) = pull(terminal(end))
    weights = measure.depth_weights[node].reshape(*node.shape, 1, 1, 1)
    at_nodes, is_there = _stages_of(node.ravel())
    there, costates = (array.reshape(-1, *tokens.shape)[at_nodes] for array in (passed, slopes / weights))
    costates = jnp.where(is_there[:, :, None, None, None], costates, 0)
    return StageAdjoint(encoder, measure.depths, there, costates)


def _stages_of(node: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The stages of each node, `[nodes, shared]`, and which of these places are filled; the others hold stage 0."""
    stages = [np.flatnonzero(node == number) for number in range(node.max() + 1)]
    filled = np.arange(max(map(len, stages)))[None] < np.array([len(each) for each in stages])[:, None]
    places = np.zeros(filled.shape, int)
    places[filled] = np.concatenate(stages)
    return places, filled
