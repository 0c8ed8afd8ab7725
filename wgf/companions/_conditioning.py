"""The conditioning of a residual model: singular values, and the linear rate that they guarantee."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._backend.precision import Module
from .._checks import instance, numbers, positive
from ._residual import ResidualTransformer, SquareLoss


class Spectrum(Module):
    """The least and the greatest singular value of a matrix, `[...]` each, and their ratio."""

    least: Float[Array, "*shape"]
    greatest: Float[Array, "*shape"]

    @property
    def condition(self) -> Float[Array, "*shape"]:
        """The condition number σ_max / σ_min, at most 1/ε: rounding hides a smaller σ_min."""
        resolved = jnp.finfo(self.greatest.dtype).eps * self.greatest
        return self.greatest / jnp.maximum(self.least, resolved)


def spectrum(matrix: Float[Array, "*shape rows columns"]) -> Spectrum:
    """The least and the greatest of the min(rows, columns) singular values.

    Cost: one singular value decomposition, without vectors.
    """
    matrix = numbers("matrix", matrix)
    if matrix.ndim < 2:
        raise ValueError(f"`matrix` must have shape [..., rows, columns]; got {matrix.shape}.")
    values = jnp.linalg.svd(matrix, compute_uv=False)
    return Spectrum(values[..., -1], values[..., 0])


def attention_spectrum(loss: SquareLoss, model: ResidualTransformer) -> Spectrum:
    r"""The spectrum of every attention layer's output matrix, `[depth]`.

    The matrix B of a layer stacks all tokens of all prompts, `[prompts * length, dim]`.

    As T grows, softmax weights \( P = \mathrm{softmax}(S/T) \) tend to \( \tfrac1n 1 1^\top \): \( P = \tfrac1n 1
    1^\top + O(1/T) \). As T falls to 0, they tend to one unit vector per row, often the same for several rows. Without
    the residual connection, B = P X W_V then has rank one per prompt, or repeated rows. For long prompts and large T,
    σ_min(B) = O(1/T). With the residual connection, \( \sigma_{\min}(B) \ge \sigma_{\min}(X) - \sigma_{\max}(P X W_V)
    \) (Weyl). If the columns of P X W_V are independent of X, the two terms add up like independent noise.
    """
    instance("loss", loss, SquareLoss, "a wgf.companions.SquareLoss")
    instance("model", model, ResidualTransformer, "a wgf.companions.ResidualTransformer")
    attended = model.attended(loss.tokens, loss.temperature)
    return spectrum(attended.reshape(attended.shape[0], -1, attended.shape[-1]))


def linear_rate_bound(loss: SquareLoss, model: ResidualTransformer) -> Float[Array, ""]:
    r"""A guaranteed rate of the loss's decrease: \( -\frac{d}{d\tau} \log L \ge 2 \gamma^2 \sigma_{\min}(B)^2
    \sigma_{\min}(W_2)^2 \).

    Under the gradient flow \( dL/d\tau = -\|\nabla L\|^2 \). With the error \( E = F - Y \), of all N tokens, \( L =
    \tfrac12 \|E\|_F^2 \), and B, W_1, W_2 of the last layer,

    \[ \nabla_{W_1} L = B^\top \bigl( E W_2^\top \circ \sigma'(B W_1) \bigr), \qquad
       \|\nabla L\|^2 \ge \|\nabla_{W_1} L\|_F^2 \ge \sigma_{\min}(B)^2\, \gamma^2\, \sigma_{\min}(W_2)^2\, 2 L, \]

    where the first step needs \( B^\top \) injective, N ≤ d, and the last needs \( W_2^\top \) injective on rows, d ≤
    m: the conditions of the theorem. The residual connection of the feed-forward network adds a term without W_1 and
    changes nothing here. The residual connection of the attention determines σ_min(B).

    If B and W_2 stay near their initial values, this is a linear rate. They do so if the initial loss is small compared
    with their least singular values. The gradient's Lipschitz constant grows as σ_max(B)². Gradient descent with a step
    proportional to σ_max(B)⁻² therefore contracts L per step by \( 1 - O(\sigma_{\min}(B)^2 / \sigma_{\max}(B)^2) \).

    **Returns:** the bound at this model; 0 if N > d or d > m.

    Cost: one forward pass and two singular value decompositions.

    **Source:** the statement is that of arXiv:2506.05249, whose constants also contain the initial loss. The inequality
    is that of Q. Nguyen and M. Mondelli, arXiv:2002.07867, for feed-forward networks, with B as the wide layer.
    """
    instance("loss", loss, SquareLoss, "a wgf.companions.SquareLoss")
    prompts, length, dim = loss.tokens.shape
    blocks = model.blocks
    if prompts * length > dim or dim > blocks.w_in.shape[-1]:
        return jnp.zeros((), loss.tokens.dtype)
    least = attention_spectrum(loss, model).least[-1] * spectrum(blocks.w_out[-1]).least
    return 2 * jnp.square(blocks.activation.slope * least)


def step_size(loss: SquareLoss, model: ResidualTransformer, fraction: ArrayLike) -> Float[Array, ""]:
    r"""The learning rate of gradient descent that the theory allows: \( \eta = c\, \sigma_{\max}(B)^{-2} \).

    **Arguments:**

    - `loss`, `model`: the loss, and the model at the start. σ_max(B) is the greatest over the layers.
    - `fraction`: c. Good values: 0.02 to 0.1. Stability also depends on the norms of W_1 and W_2.
    """
    fraction = positive("fraction", fraction)
    return fraction / jnp.max(attention_spectrum(loss, model).greatest) ** 2
