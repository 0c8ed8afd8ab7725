"""The risk R and the objective Q = R + λ/2 ∫‖θ‖² dρ."""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from .._backend.compiled import compiled
from .._checks import flag, instance, not_negative, numbers, shown
from .._display.text import Brief, facts_of, number
from .._random import purpose
from ..models import AbstractAdjoint, AbstractModel
from ..prompts import Prompts
from ._first_variation import FirstVariation
from ._function import as_loss, as_readout, name_of
from ._loss import AbstractLoss, HalfSquaredError
from ._readout import AbstractReadout, QueryEntry
from ._shapes import result_of


def _taken(model: Any, *parts: str) -> Any:
    """Return a model; raise `ValueError` unless it has these parts."""
    if isinstance(model, type) or not all(hasattr(model, part) for part in parts):
        raise ValueError(f"`model` must be a wgf.Transformer or a wgf.AveragedODE; got {shown(model)}.")
    return model


def _outputs_of(readout: AbstractReadout, tokens: Array) -> jax.ShapeDtypeStruct:
    """The shape and type of a readout's outputs; raise `ValueError` unless they are real numbers for each prompt."""
    batch, *prompt = tokens.shape
    rule = f"`readout` must map the final tokens of one prompt, [D, N+1] = {prompt}, to a number or an array of numbers"
    outputs = result_of(rule, name_of(readout), readout, tokens)
    if outputs.shape[:1] != (batch,):
        raise ValueError(f"{rule}; {name_of(readout)} returned {list(outputs.shape)} for {batch} prompts.")
    return outputs


class Objective(Brief):
    r"""The regularised risk of a model on a data measure,

    \[ Q(\rho) = E_\mu\, \ell\big(\mathrm{Read}\,T_\rho(H, 1),\, y\big)
                 + \frac{\lambda}{2} \int_0^1\!\!\int \|\theta\|^2 \rho(d\theta, t)\,dt. \]

    **Arguments:**

    - `prompts`: the data measure μ.
    - `weight_decay`: λ ≥ 0. Good values: 1e-5 to 1e-2; the bound on the final risk is proportional to λ.
    - `loss`: [`wgf.objective.HalfSquaredError`][] (the default, the paper's), [`wgf.objective.CrossEntropy`][], or any
      function of the prediction and the label of one prompt ([`wgf.objective.FunctionLoss`][]).
    - `readout`: default [`wgf.objective.QueryEntry`][] at `prompts.label_row`; or any function of the final tokens of
      one prompt ([`wgf.objective.FunctionReadout`][]).

    **Raises:** `ValueError` if λ is negative, or if readout, loss and labels do not fit together, e.g. a label that is
    not a class of `CrossEntropy`, or a function whose result has no derivative.

    Its `repr` is one line, and `summary()` has several. `equinox.tree_pformat` gives its whole structure.

    **Source:** arXiv:2410.23610, equations 2.6 and 3.2.
    """

    prompts: Prompts
    weight_decay: Float[Array, ""]
    loss: AbstractLoss
    readout: AbstractReadout

    def __init__(
        self,
        prompts: Prompts,
        weight_decay: ArrayLike = 0.0,
        *,
        loss: AbstractLoss | Callable[[Array, Array], Array] = HalfSquaredError(),  # noqa: B008 (an immutable module)
        readout: AbstractReadout | Callable[[Array], Array] | None = None,
    ):
        prompts = instance("prompts", prompts, Prompts, "a wgf.prompts.Prompts")
        self.weight_decay = not_negative("weight_decay", weight_decay).astype(prompts.tokens.dtype)
        self.loss = as_loss(loss)
        readout = QueryEntry(prompts.label_row) if readout is None else readout
        self.readout = as_readout(readout)
        self.readout.check(prompts.token_dim)
        labels = self.loss.check(_outputs_of(self.readout, prompts.tokens).shape, prompts.labels)
        checked = labels is not None and labels is not prompts.labels
        self.prompts = eqx.tree_at(lambda p: p.labels, prompts, labels) if checked else prompts

    def _facts(self) -> Iterator[str]:
        yield from facts_of(self.loss)
        yield from facts_of(self.readout)
        yield f"λ = {number(self.weight_decay)}"
        yield from facts_of(self.prompts)

    @compiled
    def __call__(self, model: AbstractModel) -> Float[Array, ""]:
        """The objective Q of a model."""
        return self.value_and_outputs(model)[0]

    @compiled
    def value_and_outputs(self, model: AbstractModel) -> tuple[Float[Array, ""], Float[Array, "batch *classes"]]:
        """The objective Q, and the outputs from which it was computed."""
        outputs = self.readout(_taken(model, "__call__", "measure")(self.prompts.tokens))
        return self.score(outputs) + self.penalty(model), outputs

    @compiled
    def risk(self, model: AbstractModel) -> Float[Array, ""]:
        """The risk R of a model, the mean loss over μ."""
        return self.score(self.outputs(model))

    @compiled
    def score(self, outputs: Float[Array, "batch *classes"]) -> Float[Array, ""]:
        """The risk of given outputs."""
        outputs = numbers("outputs", outputs)
        shape = jax.eval_shape(self.readout, self.prompts.tokens).shape
        if outputs.shape != shape:
            raise ValueError(f"`outputs` must have the shape of the readout's, {shape}; got {outputs.shape}.")
        return self.prompts.expect(self.loss(outputs, self.prompts.labels))

    @compiled
    def penalty(self, model: AbstractModel) -> Float[Array, ""]:
        """The weight-decay term of Q, λ/2 times the second moment."""
        return self.weight_decay / 2 * _taken(model, "measure").measure.second_moment()

    @compiled
    def outputs(self, model: AbstractModel) -> Float[Array, "batch *classes"]:
        """The model's output for each prompt: the readout of its final tokens."""
        return self.readout(_taken(model, "__call__")(self.prompts.tokens))

    def minibatch(self, key: PRNGKeyArray, size: int) -> "Objective":
        """The same objective on `size` prompts, drawn with replacement by weight: an unbiased estimate of Q."""
        drawn = self.prompts.draw(purpose(key, "objective.Objective.minibatch"), size)
        return eqx.tree_at(lambda objective: objective.prompts, self, drawn)

    @compiled
    def adjoint(self, model: AbstractModel) -> AbstractAdjoint:
        r"""Tokens T_ρ(H, t) and their adjoint p_ρ(H, t) for every prompt, \( p(1) = \partial \ell / \partial T(1) \).

        It is exact for the finite model, and as accurate as the model's depth solve for the limit. It is not weighted
        by μ.

        **Source:** arXiv:2410.23610, section 3.2.
        """
        return _taken(model, "adjoint").adjoint(self.prompts.tokens, self._terminal)

    @compiled
    def _discrete_adjoint(self, model: AbstractModel) -> AbstractAdjoint:
        return _taken(model, "discrete_adjoint").discrete_adjoint(self.prompts.tokens, self._terminal)

    def _terminal(self, tokens: Float[Array, "batch token_dim length"]) -> Float[Array, "batch token_dim length"]:
        """∂ℓ/∂T(1) of every prompt."""
        return jax.grad(lambda tokens: jnp.sum(self.loss(self.readout(tokens), self.prompts.labels)))(tokens)

    def first_variation(self, model: AbstractModel, *, discrete: bool = False) -> FirstVariation:
        r"""The first variation δQ/δρ at a model, a function of `(particle, t)`.

        **Arguments:**

        - `model`: a [`wgf.Transformer`][] or a [`wgf.AveragedODE`][].
        - `discrete`: for a [`wgf.measures.Staged`][] measure, whether to differentiate the depth solve itself. At the
          stage times δQ/δρ is then the derivative of Q as it is computed, and its gradient at each particle is exactly
          minus the flow's velocity. At any other depth it is that of the nearest stage time. By default tokens and
          adjoint are interpolated in depth, which is smooth, and differs by the error of the depth solve. For other
          measures there is no difference.

        **Raises:** `ValueError` if a known array of the model is NaN or infinite.

        Cost: one forward and one backward solve. Each value then costs B encoder evaluations.
        """
        if isinstance(model, AbstractModel):
            model.check_finite()
        adjoint = self._discrete_adjoint(model) if flag("discrete", discrete) else self.adjoint(model)
        return FirstVariation(adjoint, self.prompts.weights, self.weight_decay)
