"""The finite Transformer: alternating half steps of width M and depth L."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from .._backend.compiled import compiled
from .._backend.prompt_shares import over_prompts
from .._checks import ENCODER, instance
from .._depth import check_depth
from ..encoders import AbstractEncoder, Average
from ..measures import Layered
from ..measures._layered import layer_at
from ._adjoint import AbstractAdjoint
from ._base import AbstractModel, Batch, check_depths, check_terminal, check_tokens


class Transformer(AbstractModel):
    r"""The residual network of L layers with M particles per layer and Δt = 1/L:

    \[ T(t + \tfrac{\Delta t}{2}) = T(t) + \tfrac{\Delta t}{2} \sum_j a_{tj} f(T(t), \theta_{tj}), \qquad
       T(t + \Delta t) = T(t + \tfrac{\Delta t}{2}) + \tfrac{\Delta t}{2} \sum_j a_{tj} h(T(t + \tfrac{\Delta t}{2}),
       \theta_{tj}). \]

    If the encoder e is not a [`wgf.encoders.Average`][], a layer is the plain residual step T += Δt · mean e.

    **Arguments:**

    - `encoder`: the action of a particle on tokens.
    - `measure`: [`wgf.measures.Layered`][], whose particles have leading axes `[L, M]`.

    `layers` is None, or, in a padded model ([`wgf.flow_many`][]), the number of layers that are not padding.

    **Raises:** `ValueError` if the measure is not layered.

    Cost: L·M encoder evaluations per prompt. Gradients store the tokens of each layer and recompute the rest.

    **Source:** arXiv:2410.23610, equation 2.5.
    """

    encoder: AbstractEncoder
    measure: Layered
    tracers: tuple[Layered, ...]
    layers: Int[Array, "*saves"] | None

    def __init__(self, encoder: AbstractEncoder, measure: Layered):
        self.encoder = instance("encoder", encoder, AbstractEncoder, ENCODER)
        self.measure = instance("measure", measure, Layered, "a wgf.measures.Layered")  # pyright: ignore[reportIncompatibleVariableOverride]
        self.tracers = ()
        self.layers = None

    @compiled
    def __call__(self, tokens: Batch) -> Batch:
        """Push prompts `[B, D, N+1]` through all layers."""
        tokens = check_tokens(self, tokens)
        depth = self.measure.weights.shape[0]

        def layer(tokens, law):
            particles, weights = law
            for part in substeps(self.encoder):
                # Checkpoints are per substep, not per layer, so that an encoder that stores only its inputs runs
                # forward once. JAX hashes what it checkpoints: a partial function has a hash, a method may have none.
                mean = jax.checkpoint(functools.partial(part.encoder.mean), prevent_cse=False)
                tokens = tokens + part.share / depth * mean(part.select(particles), weights, tokens)
            return tokens, None

        def layer_if_any(tokens, inputs):
            number, law = inputs
            return jax.lax.cond(number < self.layers, layer, lambda tokens, _: (tokens, None), tokens, law)

        padded = self.layers is not None
        push = over_prompts(functools.partial(jax.lax.scan, layer_if_any if padded else layer), len(tokens))
        return push(tokens, (jnp.arange(depth), self._laws()) if padded else self._laws())[0]

    def trajectory(self, tokens: Batch, depths: ArrayLike) -> Float[Array, "depths batch token_dim length"]:
        """The tokens at the given depths, linear in depth within each substep.

        **Raises:** `ValueError` if `depths` is not a vector, or a depth that is not traced lies outside [0, 1].
        """
        return self._trajectory(check_tokens(self, tokens), check_depths(depths))

    @compiled
    def _trajectory(
        self, tokens: Batch, depths: Float[Array, " depths"]
    ) -> Float[Array, "depths batch token_dim length"]:
        states = self._substates(tokens)
        count = states.shape[0] - 1
        place = depths * count
        whole = jnp.clip(jnp.floor(place), 0, count - 1)
        below, share = whole.astype(int), (place - whole)[:, None, None, None].astype(states.dtype)
        return (1 - share) * states[below] + share * states[below + 1]

    @compiled
    def adjoint(self, tokens: Batch, terminal: Callable[[Batch], Batch]) -> "LayerAdjoint":
        """The exact adjoint of the discrete layers, substep by substep."""
        check_terminal(terminal)
        tokens = check_tokens(self, tokens)
        states = self._substates(tokens)
        parts = len(substeps(self.encoder))
        before = states[:-1].reshape(-1, parts, *tokens.shape)

        def layer(costate, inputs):
            states, law = inputs
            after = []
            for index, part in reversed(list(enumerate(substeps(self.encoder)))):
                after.append(costate)
                _, pull = jax.vjp(lambda tokens, part=part: self._step(part, tokens, law), states[index])
                costate = costate + pull(costate)[0]
            return costate, jnp.stack(after[::-1])

        first, after = jax.lax.scan(layer, terminal(states[-1]), (before, self._laws()), reverse=True)
        return LayerAdjoint(self, states, jnp.concatenate([first[None], after.reshape(states[1:].shape)]))

    def _laws(self):
        return self.measure.particles, self.measure.weights

    def _step(self, part: "Substep", tokens: Batch, law) -> Batch:
        particles, weights = law
        size = part.share / self.measure.weights.shape[0]
        return size * part.encoder.mean(part.select(particles), weights, tokens)

    def _substates(self, tokens: Batch) -> Float[Array, "states batch token_dim length"]:
        def layer(tokens, law):
            states = []
            for part in substeps(self.encoder):
                states.append(tokens := tokens + self._step(part, tokens, law))
            return tokens, jnp.stack(states)

        states = jax.lax.scan(layer, tokens, self._laws())[1]
        return jnp.concatenate([tokens[None], states.reshape(-1, *tokens.shape)])


class Substep:
    """One encoder that acts on its part of the particle, for a share of each layer's Δt."""

    def __init__(self, encoder: AbstractEncoder, share: float, select: Callable[[PyTree], PyTree]):
        self.encoder = encoder
        self.share = share
        self.select = select


def substeps(encoder: AbstractEncoder) -> tuple[Substep, ...]:
    """The two half steps of an average, or one whole step of any other encoder."""
    if isinstance(encoder, Average):
        return (
            Substep(encoder.f, 0.5, lambda particle: particle.f),
            Substep(encoder.h, 0.5, lambda particle: particle.h),
        )
    return (Substep(encoder, 1.0, lambda particle: particle),)


class LayerAdjoint(AbstractAdjoint):
    """States and adjoints after every substep of a Transformer, `[substeps·L + 1, B, D, N+1]` each."""

    model: Transformer
    states: Float[Array, "states batch token_dim length"]
    adjoints: Float[Array, "states batch token_dim length"]

    def tokens(self, depth: ArrayLike) -> Batch:
        """T at the start of the layer that holds t; T(1) at t = 1."""
        return self.states[self._index(depth)]

    def costates(self, depth: ArrayLike) -> Batch:
        """The adjoint p at the start of the layer that holds t; p(1) at t = 1."""
        return self.adjoints[self._index(depth)]

    def pairing(
        self,
        particles: PyTree[Array],
        masses: Float[Array, " count"],
        depth: ArrayLike,
        prompt_weights: Float[Array, " batch"],
    ) -> Float[Array, ""]:
        """Pair each substep's encoder with the state before and the adjoint after it: the exact discrete gradient."""
        self.model.encoder.check_particles(particles, 1)
        parts = substeps(self.model.encoder)
        start = len(parts) * self._layer(depth)
        total = jnp.zeros((), self.states.dtype)
        for index, part in enumerate(parts):
            mean = part.encoder.mean(part.select(particles), masses, self.states[start + index])
            paired = jnp.sum(mean * self.adjoints[start + index + 1], axis=(1, 2))
            total = total + part.share * jnp.sum(prompt_weights * paired)
        return total

    def _index(self, depth: ArrayLike) -> Array:
        parts, last = len(substeps(self.model.encoder)), self.states.shape[0] - 1
        return jnp.where(check_depth("depth", depth) >= 1, last, parts * self._layer(depth))

    def _layer(self, depth: ArrayLike) -> Array:
        """The layer that holds t. Layers that are padding take up no depth."""
        weights = self.model.measure.weights
        layers = weights.shape[0] if self.model.layers is None else self.model.layers
        return layer_at(depth, layers, weights.dtype)
