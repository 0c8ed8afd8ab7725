"""The Transformer of the theory of residual connections: softmax attention, feed-forward, square loss."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from .._backend.compat import is_traced
from .._backend.compiled import compiled
from .._backend.precision import Module
from .._checks import at_least, check_memory, flag, numbers, one_number, positive, shown
from .._random import purpose

Tokens = Float[Array, "prompts length dim"]


class SmoothLeakyReLU(Module):
    r"""The activation \( \sigma(x) = \gamma x + (1 - \gamma)(\log(1 + e^x) - \log 2) \).

    It meets the theory's conditions on an activation: \( \gamma \le \sigma' \le 1 \), \( |\sigma(x)| \le |x| \) and a
    Lipschitz derivative, \( |\sigma''| \le (1 - \gamma)/4 \).

    **Arguments:**

    - `slope`: γ, in (0, 1]; 1 is the identity.

    **Source:** the conditions are those of Q. Nguyen and M. Mondelli, arXiv:2002.07867, assumption 2.1.
    """

    slope: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        if not 0 < one_number("slope", self.slope) <= 1:
            raise ValueError(f"`slope` must lie in (0, 1]; got {self.slope}.")

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply σ to each entry."""
        return self.slope * x + (1 - self.slope) * (jax.nn.softplus(x) - math.log(2))


class Block(Module):
    r"""One layer, on a prompt X `[length, dim]` whose rows are tokens:

    \[ B = r X + \mathrm{softmax}\Bigl(\frac{X W_Q (X W_K)^\top}{T \sqrt d}\Bigr) X W_V, \qquad
       F = r B + \sigma(B W_1) W_2, \]

    with r = 1 if there are residual connections, else r = 0. B is the attention layer's output, and T the temperature.

    - `query`, `key`, `value`: W_Q, W_K, W_V, `[dim, dim]`.
    - `w_in`, `w_out`: W_1 `[dim, hidden]` and W_2 `[hidden, dim]`.
    - `activation`: σ.
    - `residual`: whether r is 1.

    **Source:** Z. Qin et al., arXiv:2506.05249.
    """

    query: Float[Array, "*depth dim dim"]
    key: Float[Array, "*depth dim dim"]
    value: Float[Array, "*depth dim dim"]
    w_in: Float[Array, "*depth dim hidden"]
    w_out: Float[Array, "*depth hidden dim"]
    activation: SmoothLeakyReLU
    residual: bool = eqx.field(static=True)

    def attend(self, tokens: Tokens, temperature: ArrayLike) -> Tokens:
        """The attention layer's output B of every prompt."""
        scores = jnp.einsum("sid,sjd->sij", tokens @ self.query, tokens @ self.key)
        weights = jax.nn.softmax(scores / (temperature * math.sqrt(tokens.shape[-1])), axis=-1)
        return self._shortcut(tokens) + weights @ (tokens @ self.value)

    def feed(self, attended: Tokens) -> Tokens:
        """The layer's output F, from the attention layer's output."""
        return self._shortcut(attended) + self.activation(attended @ self.w_in) @ self.w_out

    def _shortcut(self, tokens: Tokens) -> Tokens:
        return tokens if self.residual else jnp.zeros_like(tokens)


class ResidualTransformer(Module):
    r"""A stack of blocks \( X \mapsto F \), all with or all without residual connections.

    Every entry of a matrix with n rows is drawn from N(0, s²/n). For W_Q, W_K and W_1, s = 1. For W_V and W_2, whose
    outputs are added to residual connections, s = `branch_scale`.

    **Arguments:**

    - `dim`, `hidden`: the dimension d of a token and the width m of the feed-forward network. The theory's linear rate
      needs m ≥ d and at most d tokens in all. With m = 4 d, σ_min(W_2) is near `branch_scale` / 2.
    - `depth`: the number of layers.
    - `residual`: whether each layer has its two residual connections.
    - `branch_scale`: s. Default: 1/√depth with residual connections, so that tokens do not grow with depth, and 1
      without, so that they do not shrink.
    - `slope`: γ of [`wgf.companions.SmoothLeakyReLU`][].
    - `key`: a random key.

    **Raises:** `ValueError` if a count is below 1, or `slope` is outside (0, 1].

    **Source:** arXiv:2506.05249.
    """

    blocks: Block

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        depth: int = 1,
        residual: bool = True,
        branch_scale: ArrayLike | None = None,
        slope: float = 0.5,
        key: PRNGKeyArray,
    ):
        dim, hidden, depth = at_least("dim", dim, 1), at_least("hidden", hidden, 1), at_least("depth", depth, 1)
        check_memory(each=dim, depth=depth, dim=dim)
        check_memory(each=depth, dim=dim, hidden=hidden)
        default = depth**-0.5 if flag("residual", residual) else 1.0
        branch = default if branch_scale is None else positive("branch_scale", branch_scale)
        keys = jax.random.split(purpose(key, "companions.ResidualTransformer"), 5)

        def draw(key: PRNGKeyArray, rows: int, columns: int, scale: ArrayLike = 1.0) -> Array:
            return jax.random.normal(key, (depth, rows, columns)) * (scale / math.sqrt(rows))

        self.blocks = Block(
            query=draw(keys[0], dim, dim),
            key=draw(keys[1], dim, dim),
            value=draw(keys[2], dim, dim, branch),
            w_in=draw(keys[3], dim, hidden),
            w_out=draw(keys[4], hidden, dim, branch),
            activation=SmoothLeakyReLU(slope),
            residual=residual,
        )

    def __call__(self, tokens: Tokens, temperature: ArrayLike = 1.0) -> Tokens:
        """The last layer's output, for prompts `[prompts, length, dim]`."""
        return self._scan(*self._checked(tokens, temperature))[0]

    def attended(self, tokens: Tokens, temperature: ArrayLike = 1.0) -> Float[Array, "depth prompts length dim"]:
        """The attention layer's output B of every layer."""
        return self._scan(*self._checked(tokens, temperature))[1]

    def _checked(self, tokens: Tokens, temperature: ArrayLike) -> tuple[Tokens, Float[Array, ""]]:
        tokens, dim = numbers("tokens", tokens), self.blocks.query.shape[-1]
        if tokens.ndim != 3 or tokens.shape[2] != dim:
            raise ValueError(f"`tokens` must have shape [prompts, length, dim = {dim}]; got {tokens.shape}.")
        return tokens, _temperature(temperature)

    @compiled
    def _scan(self, tokens: Tokens, temperature: Float[Array, ""]):
        dynamic, static = eqx.partition(self.blocks, eqx.is_array)

        def layer(tokens, dynamic):
            block = eqx.combine(dynamic, static)
            attended = block.attend(tokens, temperature)
            return block.feed(attended), attended

        return jax.lax.scan(layer, tokens, dynamic)


def _temperature(value: ArrayLike) -> Array:
    """Return a temperature as an array; raise `ValueError` unless it is positive, if it is known."""
    return jnp.asarray(value if is_traced(value) else positive("temperature", value), jnp.result_type(float))


class SquareLoss(Module):
    r"""The objective \( L = \tfrac12 \sum_s \|F(X_s) - Y_s\|_F^2 \), called on a model.

    **Arguments:**

    - `tokens`: the prompts X, `[prompts, length, dim]`.
    - `targets`: Y, of the same shape.
    - `temperature`: T of every layer's softmax. It belongs to the task and not to the model, so it is not trained.

    **Source:** arXiv:2506.05249.
    """

    tokens: Tokens
    targets: Tokens
    temperature: Float[Array, ""] = eqx.field(converter=_temperature, default=1.0)

    def __check_init__(self):
        for name in ("tokens", "targets"):
            if numbers(name, getattr(self, name)).ndim != 3:
                raise ValueError(f"`{name}` must have shape [prompts, length, dim]; got {getattr(self, name).shape}.")
        if self.tokens.shape != self.targets.shape:
            raise ValueError(
                f"`targets` must have the shape of `tokens`, {self.tokens.shape}; got {self.targets.shape}."
            )

    def __call__(self, model: ResidualTransformer) -> Float[Array, ""]:
        """L of a model."""
        if not callable(model):
            raise ValueError(f"`model` must be a wgf.companions.ResidualTransformer; got {shown(model)}.")
        return jnp.sum((model(self.tokens, self.temperature) - self.targets) ** 2) / 2
