"""The Vision Transformers of `wgf images`: their encoder, objective, training and evaluation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PRNGKeyArray

from ..._backend.precision import Module
from ...encoders import Average, LayerNorm, Perceptron, SoftmaxAttention
from ...flows import train
from ...models import Transformer
from ...objective import CrossEntropy, Objective, QueryRows
from ...prompts import Prompts, Split

_CLASSES = 10


def vision_encoder(token_dim: int, key_dim: int) -> Average:
    """Attention and perceptron behind layer normalisation, as in a Vision Transformer's pre-norm block."""
    attention, perceptron = SoftmaxAttention(token_dim, key_dim=key_dim), Perceptron(token_dim, jax.nn.gelu)
    return Average(LayerNorm(attention, epsilon=1e-2), LayerNorm(perceptron, epsilon=1e-2))


def vision_objective(prompts: Prompts, weight_decay: float | Array = 0.0) -> Objective:
    """Cross-entropy of the logits, which are read from the class token's class rows."""
    readout = QueryRows(prompts.label_row, _CLASSES)
    return Objective(prompts, weight_decay, loss=CrossEntropy(), readout=readout)


class _Sampled(Module):
    """An objective whose minibatches come from the whole training set, and whose own value is that of one minibatch.

    At each save `train` evaluates its objective with a gradient. Over 50,000 images that would cost as much as an
    epoch.
    """

    objective: Objective
    probe: Objective

    def __call__(self, model: Transformer) -> Float[Array, ""]:
        return self.probe(model)

    def minibatch(self, key: PRNGKeyArray, size: int) -> Objective:
        return self.objective.minibatch(key, size)


@eqx.filter_jit
def train_seeds(
    split: Split,
    weight_decay: float,
    models: Transformer,
    keys: Key[Array, " seeds"],
    optimiser: optax.GradientTransformation,
    steps: int,
    every: int,
    batch: int,
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Train all seeds, one after the other. Return loss and accuracy `[seeds, saves]` on both sets of images."""
    whole = vision_objective(split.train, weight_decay)
    objective = _Sampled(whole, whole.minibatch(jax.random.key(0), batch))
    arrays, rest = eqx.partition(models, eqx.is_array)

    def one(seed):
        arrays, key = seed
        solution = train(
            objective,
            eqx.combine(arrays, rest),
            optimiser,
            steps=steps,
            save_every=every,
            batch=batch,
            key=key,
            throw=False,
        )
        return evaluate(split.train, solution.models), evaluate(split.held_out, solution.models)

    return jax.lax.map(one, (arrays, keys))


def evaluate(prompts: Prompts, models: Transformer) -> tuple[Float[Array, " saves"], Float[Array, " saves"]]:
    """Mean loss and accuracy of models with a leading axis `[saves]`, one model at a time."""
    objective = vision_objective(prompts)
    arrays, rest = eqx.partition(models, eqx.is_array)

    def one(arrays):
        logits = objective.outputs(eqx.combine(arrays, rest))
        return objective.score(logits), prompts.expect((jnp.argmax(logits, -1) == prompts.labels).astype(logits.dtype))

    return jax.lax.map(one, arrays)
