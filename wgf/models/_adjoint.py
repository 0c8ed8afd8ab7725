"""The adjoint p_ρ(H, t): the derivative of the loss in the tokens at depth t."""

import abc

from jaxtyping import Array, ArrayLike, Float, PyTree

from .._backend.precision import Module

Batch = Float[Array, "batch token_dim length"]


class AbstractAdjoint(Module):
    r"""Tokens T(t) and their adjoint p(t) for every prompt, at any depth.

    \( \dot p = -\int [D_T g(T, \theta)]^\top p \,\rho(d\theta, t) \), \( p(1) = \partial\,\mathrm{loss}/\partial
    T(1) \).

    **Source:** arXiv:2410.23610, section 3.2.
    """

    @abc.abstractmethod
    def tokens(self, depth: ArrayLike) -> Batch:
        """T(t), `[B, D, N+1]`."""

    @abc.abstractmethod
    def costates(self, depth: ArrayLike) -> Batch:
        """p(t), `[B, D, N+1]`, not weighted by the data measure."""

    @abc.abstractmethod
    def pairing(
        self,
        particles: PyTree[Array],
        masses: Float[Array, " count"],
        depth: ArrayLike,
        prompt_weights: Float[Array, " batch"],
    ) -> Float[Array, ""]:
        r"""\( \sum_j m_j E_\mu \langle g(T(t), \theta_j), p(t) \rangle \) for particles `[count]` at one depth.

        With unit masses its gradient in θ_j is the gradient of particle j's first variation. One call of the encoder's
        mean gives all of these gradients.
        """
