"""The data sets and the initial models of `wgf decay`."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ... import prompts as data
from ...encoders import Average, Head, Neuron, Pair, Perceptron, SoftmaxAttention
from ...measures import Gaussian
from ...models import Transformer
from ...objective import Objective
from ...prompts import Prompts
from ._config import DecayConfig


def load(config: DecayConfig, name: str) -> tuple[Prompts, Transformer | None]:
    """The prompts of a data set, and its teacher if it has one."""
    sizes: dict[str, Any] = {"batch": config.batch, "examples": config.examples, "dim": config.dim, "positions": 0}
    data_key, label_key = jax.random.split(jax.random.key(config.seed))
    if name == "diabetes":
        return data.diabetes(data_key, **sizes), None
    prompts = data.linear_regression(data_key, **sizes)
    if name == "synthetic":
        return prompts, None
    if name == "shuffled":
        return _relabel(prompts, jax.random.permutation(label_key, prompts.labels)), None
    encoder = _encoder(prompts)
    teacher = Transformer(encoder, Gaussian(encoder, 1.0).layered(config.depth, config.teacher_width, label_key))
    return _relabel(prompts, Objective(prompts).outputs(teacher)), teacher


def start(config: DecayConfig, prompts: Prompts, planted: bool) -> Transformer:
    r"""The model at τ = 0: drawn from ρ₀, or drawn from ρ₀ with keys, queries and neurons set to zero (planted).

    The planted start lies in a subspace that the flow cannot leave: the score is bilinear in K and Q, and
    \( w_{out} \tanh(w_{in}^\top T + b) \) has no gradient at zero. There attention is uniform, and the model is linear.
    """
    encoder = _encoder(prompts)
    key: PRNGKeyArray = jax.random.fold_in(jax.random.key(config.seed), 1)
    model = Transformer(encoder, Gaussian(encoder, config.scale).layered(config.depth, config.width, key))
    if not planted:
        return model
    zeros: Any = jax.tree.map(jnp.zeros_like, model.measure.particles)
    head: Head = model.measure.particles.f
    neuron: Neuron = zeros.h
    return model.with_particles(Pair(zeros.f._replace(value=head.value), neuron))


def _relabel(prompts: Prompts, labels) -> Prompts:
    return eqx.tree_at(lambda p: p.labels, prompts, labels)


def _encoder(prompts: Prompts) -> Average:
    return Average(SoftmaxAttention(prompts.token_dim, key_dim=1), Perceptron(prompts.token_dim, jnp.tanh))
