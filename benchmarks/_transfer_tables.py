"""Which residual factor lets the best step of an optimiser transfer over depth: 1/L or 1/√L. A small experiment."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _report import Check, Table
from jaxtyping import Array

import wgf
from wgf.encoders import AbstractEncoder

OPTIMISERS = {"gradient descent": optax.sgd, "Adam": optax.adam}
# Octaves of the steps that are tried, from one to the other.
RANGES = {
    ("gradient descent", 1.0): (-1, 4),
    ("gradient descent", 0.5): (-6, 2),
    ("Adam", 1.0): (-4, 1),
    ("Adam", 0.5): (-6, 0),
}
# The powers of L by which the best step should move; docs/theory/truths.md derives them.
PREDICTED = {
    ("gradient descent", 1.0): 0.0,
    ("gradient descent", 0.5): -1.0,
    ("Adam", 1.0): 0.0,
    ("Adam", 0.5): -0.5,
}


class Scaled(AbstractEncoder):
    """An encoder times a number. With √L the residual factor 1/L of the Transformer becomes 1/√L."""

    encoder: AbstractEncoder
    factor: Array

    def sample(self, key, shape):
        """Draw particles of the inner encoder."""
        return self.encoder.sample(key, shape)

    def __call__(self, particle, tokens):
        """Apply the inner encoder, then scale."""
        return self.factor * self.encoder(particle, tokens)


def transfer(quick: bool) -> Table:
    """The best step of each optimiser against L, for both residual factors."""
    depths, seeds, updates = ((4, 64), 8, 8) if quick else ((4, 8, 16, 32, 64), 16, 8)
    keys, rows, checks = jax.random.split(jax.random.key(1), seeds), [], []
    for (name, power), (low, high) in RANGES.items():
        octaves = np.arange(low, high + 0.1, 0.5)
        losses = [
            np.asarray(final_losses(name, depth, depth ** (1 - power), jnp.asarray(2.0**octaves), keys, updates))
            for depth in depths
        ]
        best = [best_octave(octaves, found) for found in losses]
        random = np.random.default_rng(0)
        again = np.array(
            [
                [best_octave(octaves, found[:, random.integers(seeds, size=seeds)]) for found in losses]
                for _ in range(200)
            ]
        )
        octaves_of_depth = np.log2(depths)
        moved = float(np.polyfit(octaves_of_depth, best, 1)[0])
        error = float(np.polyfit(octaves_of_depth, again.T, 1)[0].std())
        factor = "1/L" if power == 1 else "1/√L"
        expected = PREDICTED[name, power]
        rows.append((name, factor, *(2.0**octave for octave in best), moved, error, expected))
        if power == 1:
            spread = float(2 ** (max(best) - min(best)))
            checks.append(Check(f"{name}, residual factor 1/L: greatest best step / least", spread, 1.0, 2.0))
        else:
            claim = f"{name}, residual factor 1/√L: power of L of the best step"
            checks.append(Check(claim, moved, expected - 0.25, expected + 0.25))
    return Table(
        "Best step against depth",
        ("optimiser", "residual factor", *(f"L = {depth}" for depth in depths), "power of L", "error", "predicted"),
        rows,
        f"tanh neurons, M = 2, in-context regression on 8 prompts, {updates} updates on the mean-field gradient LM ∇Q, "
        f"{seeds} seeds. Best step: where the geometric mean over seeds of the final risk is least. Error: bootstrap "
        "over seeds.",
        checks,
    )


@eqx.filter_jit
def final_losses(name: str, depth: int, factor: Array, steps: Array, keys: Array, updates: int) -> Array:
    """Risks `[steps, seeds]` after the updates, at most ten times that of the start."""
    prompts = wgf.prompts.linear_regression(jax.random.key(0), batch=8, examples=4, dim=2, positions=0)
    objective = wgf.Objective(prompts)
    encoder = Scaled(wgf.encoders.Perceptron(prompts.token_dim, jnp.tanh), jnp.asarray(factor))

    def run(step, key):
        start = wgf.measures.Gaussian(encoder, 0.5).layered(depth, 2, key)
        model, optimiser = wgf.Transformer(encoder, start), OPTIMISERS[name](step)

        def update(carry, _):
            particles, state = carry
            gradient = jax.grad(lambda particles: objective.risk(model.with_particles(particles)))(particles)
            # The gradient of one particle in the mean-field scale.
            gradient = jax.tree.map(lambda leaf: 2 * depth * leaf, gradient)
            changes, state = optimiser.update(gradient, state, particles)
            return (optax.apply_updates(particles, changes), state), None

        carry = (start.particles, optimiser.init(start.particles))
        (particles, _), _ = jax.lax.scan(update, carry, length=updates)
        first, last = objective.risk(model), objective.risk(model.with_particles(particles))
        return jnp.where(last < 10 * first, last, 10 * first)

    return jax.vmap(jax.vmap(run, (None, 0)), (0, None))(steps, keys)


def best_octave(octaves: np.ndarray, losses: np.ndarray) -> float:
    """The minimum of a parabola through the log losses within an octave of the least."""
    logs = np.log(losses).mean(axis=1)
    smooth = np.convolve(np.pad(logs, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    near = np.abs(octaves - octaves[np.argmin(smooth)]) <= 1
    curve = np.polyfit(octaves[near], logs[near], 2)
    return float(np.clip(-curve[1] / (2 * curve[0]), octaves[near][0], octaves[near][-1]))
