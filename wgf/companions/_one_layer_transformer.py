"""The one-layer Transformer of binary next-token prediction, as in the theory: no layer norm, and one bias."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from .._backend.compat import is_traced
from .._backend.precision import Module
from .._checks import at_least, check_memory, flag, numbered, numbers, positive
from .._random import purpose
from ..encoders import Causal
from ._canonical_markov import CanonicalMarkov


class OneLayerTransformer(Module):
    r"""Embedding, causal attention, ReLU feed-forward and a logit for the next symbol of a binary sequence:

    \[ T_n = x_n \epsilon + p_n, \quad
       Y_n = T_n + W_O \sum_{m \le n} \mathrm{softmax}_m\big(\langle W_Q T_n, W_K T_m\rangle / \sqrt d\big) W_V T_m,
       \quad Z_n = Y_n + W_2\,\mathrm{ReLU}(W_1 Y_n), \quad
       \mathrm{logit}_n = \langle a, Z_n \rangle + b, \]

    with a = ε if the weights are tied (`head` is None).

    **Arguments:** build it with `standard` or `rank_one`. Every array is trained.

    **Source:** arXiv:2406.03072, section 2.2; as in the authors' code, one scalar logit, no layer norm, no dropout.
    """

    token: Float[Array, " dim"]
    position: Float[Array, "length dim"]
    query: Float[Array, "dim dim"]
    key: Float[Array, "dim dim"]
    value: Float[Array, "dim dim"]
    project: Float[Array, "dim dim"]
    expand: Float[Array, "hidden dim"]
    contract: Float[Array, "dim hidden"]
    bias: Float[Array, ""]
    head: Float[Array, " dim"] | None

    @classmethod
    def standard(
        cls,
        key: PRNGKeyArray,
        *,
        length: int,
        dim: int = 4,
        hidden: int | None = None,
        scale: ArrayLike = 0.02,
        tied: bool = True,
    ) -> "OneLayerTransformer":
        """Independent normal weights of standard deviation `scale`, of `scale`/√2 in the two output matrices; bias 0.

        **Arguments:**

        - `key`: a random key.
        - `length`: the most positions N.
        - `dim`: d.
        - `hidden`: the number of neurons; default 4d.
        - `scale`: the standard deviation, usually 0.02.
        - `tied`: whether the head is the token embedding.

        **Raises:** `ValueError` if a count is below 1 or the scale is not positive.

        **Source:** GPT-2's initialisation, which arXiv:2406.03072 calls the standard one.
        """
        dim, length = at_least("dim", dim, 1), at_least("length", length, 1)
        hidden = 4 * dim if hidden is None else at_least("hidden", hidden, 1)
        check_memory(length=length, dim=dim)
        check_memory(hidden=hidden, dim=dim)
        check_memory(each=dim, dim=dim)
        shapes = [(dim,), (length, dim), *4 * [(dim, dim)], (hidden, dim), (dim, hidden), (dim,)]
        keys = jax.random.split(purpose(key, "companions.OneLayerTransformer.standard"), len(shapes))
        scale, tied = positive("scale", scale), flag("tied", tied)
        token, position, query, key_, value, project, expand, contract, head = (
            scale * jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)
        )
        return cls(
            token=token,
            position=position,
            query=query,
            key=key_,
            value=value,
            project=project / jnp.sqrt(2.0),
            expand=expand,
            contract=contract / jnp.sqrt(2.0),
            bias=jnp.zeros((), token.dtype),
            head=None if tied else head,
        )

    @classmethod
    def rank_one(
        cls, key: PRNGKeyArray, e: ArrayLike, w: ArrayLike, *, length: int, dim: int = 4, hidden: int | None = None
    ) -> "OneLayerTransformer":
        r"""The point (e, w) of the canonical model, exactly: logits \( e^2 (1 + 2 w|w|)(x_n - \tfrac12) + b \), b = 0.

        \( \epsilon = e\alpha/\sqrt d \), \( p_n = -\epsilon/2 \), \( W_1 = c\,u\alpha^\top \),
        \( W_2 = \mathrm{sgn}(w) W_1^\top \) with random signs α, equally many u = 1 and u = −1, and
        \( c = 2|w|/\sqrt{dh} \). The value matrix of the attention is 0, and its other matrices are standard. The
        weights are tied.

        **Arguments:** `e`, `w`: see [`wgf.companions.CanonicalMarkov`][]; the others as in `standard`.

        **Raises:** `ValueError` as `standard` does, and if `hidden` is odd.

        **Source:** arXiv:2406.03072, section 3, and the low-rank initialisation of the authors' code.
        """
        point = CanonicalMarkov(e, w)
        e, w = point.e, point.w
        normal_key, sign_key = jax.random.split(purpose(key, "companions.OneLayerTransformer.rank_one"))
        model = cls.standard(normal_key, length=length, dim=dim, hidden=hidden)
        hidden = model.expand.shape[0]
        if hidden % 2:
            raise ValueError(f"`hidden` must be even for neurons of either sign; got {hidden}.")
        alpha = jax.random.rademacher(sign_key, (dim,), model.token.dtype)
        token = e / jnp.sqrt(dim) * alpha
        signs = jnp.tile(jnp.array([1.0, -1.0], token.dtype), hidden // 2)
        expand = 2 * jnp.abs(w) / jnp.sqrt(dim * hidden) * jnp.outer(signs, alpha)
        return eqx.tree_at(
            lambda m: (m.token, m.position, m.value, m.expand, m.contract),
            model,
            (
                token,
                jnp.broadcast_to(-token / 2, model.position.shape),
                jnp.zeros_like(model.value),
                expand,
                jnp.sign(w) * expand.T,
            ),
        )

    def __call__(self, symbols: Int[Array, "batch length"]) -> Float[Array, "batch length"]:
        r"""The logit of \( x_{n+1} = 1 \) at every position, from the symbols up to it.

        **Raises:** `ValueError` if a symbol is neither 0 nor 1 (if traced, the logits are NaN instead), or there are
        more positions than the model has.
        """
        symbols = numbers("symbols", symbols)
        if symbols.ndim != 2:
            raise ValueError(f"`symbols` must have shape [B, N]; got {symbols.shape}.")
        length, dim = symbols.shape[1], self.token.shape[0]
        if length > self.position.shape[0]:
            raise ValueError(f"`symbols` must have at most {self.position.shape[0]} positions; got {length}.")
        symbols = symbols if is_traced(symbols) else numbered("symbols", symbols, 2, "symbols")
        ones = jnp.where((symbols == 0) | (symbols == 1), symbols, jnp.nan)
        tokens = ones[..., None] * self.token[None, None] + self.position[None, :length]
        scores = jnp.einsum("bnd,bmd->bnm", tokens @ self.query.T, tokens @ self.key.T) / jnp.sqrt(dim)
        attention = jax.nn.softmax(jnp.where(Causal()(length).T, scores, -jnp.inf))
        tokens = tokens + attention @ tokens @ (self.project @ self.value).T
        tokens = tokens + jax.nn.relu(tokens @ self.expand.T) @ self.contract.T
        return tokens @ (self.token if self.head is None else self.head) + self.bias
