"""Exact truths in NumPy and SciPy, float64. Nothing here imports `wgf` or JAX; docs/theory/truths.md derives each."""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
from scipy.integrate import solve_ivp

Particles = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class PlainTransformer:
    """A finite Transformer in NumPy, with its gradient written by hand.

    Each layer makes a half step of softmax heads, then one of neurons, each of size 1/(2L).

    Particles are a dictionary: `value` `[L, M, D, D]`, `key` and `query` `[L, M, k, D]`, `w_in` and `w_out`
    `[L, M, D]`, `bias` `[L, M]`. The forward pass also takes complex particles.
    """

    tokens: np.ndarray
    """`[B, D, n]`."""
    prompt_weights: np.ndarray
    """`[B]`, with sum 1."""
    masses: np.ndarray
    """`[L, M]`, with sum 1 in each layer."""
    seen: np.ndarray | None = None
    """`[keys, queries]`: the mask."""
    activation: Callable[[np.ndarray], np.ndarray] = np.tanh

    def shares(self, tokens: np.ndarray, key: np.ndarray, query: np.ndarray) -> np.ndarray:
        """The attention `[B, keys, queries]` of one head."""
        scores = np.swapaxes(key @ tokens, 1, 2) @ (query @ tokens) / np.sqrt(len(key))
        powers = np.exp(scores - scores.real.max(axis=1, keepdims=True))
        powers = powers if self.seen is None else np.where(self.seen, powers, 0)
        return powers / powers.sum(axis=1, keepdims=True)

    def states(self, particles: Particles) -> list[np.ndarray]:
        """The tokens before the first half step and after each one."""
        states = [self.tokens]
        for layer, masses in enumerate(self.masses):
            p = {name: leaf[layer] for name, leaf in particles.items()}
            size, before = masses / (2 * len(self.masses)), states[-1]
            heads = range(len(masses))
            step = sum(
                size[j] * p["value"][j] @ before @ self.shares(before, p["key"][j], p["query"][j]) for j in heads
            )
            states.append(before + step)
            before = states[-1]
            drives = [np.einsum("i,bin->bn", p["w_in"][j], before) + p["bias"][j] for j in heads]
            step = sum(size[j] * p["w_out"][j][:, None] * self.activation(drives[j])[:, None] for j in heads)
            states.append(before + step)
        return states

    def half_squares(self, particles: Particles, labels: np.ndarray, row: int) -> np.floating:
        """The risk: half of the mean squared error in one row of the query."""
        return np.sum(self.prompt_weights * (self.states(particles)[-1][:, row, -1] - labels) ** 2) / 2

    def cross_entropy(self, particles: Particles, labels: np.ndarray) -> np.floating:
        """The risk: mean cross-entropy of all rows as logits, at every position."""
        logits = self.states(particles)[-1]
        totals = np.log(np.sum(np.exp(logits), axis=1))
        chosen = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
        return np.sum(self.prompt_weights * np.mean(totals - chosen, axis=1))

    def gradient(self, particles: Particles, labels: np.ndarray, row: int) -> Particles:
        """The gradient of `half_squares` for tanh neurons, by hand: from the last half step to the first."""
        states, size = self.states(particles), self.masses / (2 * len(self.masses))
        p, gradient = particles, {name: np.zeros_like(leaf) for name, leaf in particles.items()}
        costate = np.zeros_like(self.tokens)
        costate[:, row, -1] = self.prompt_weights * (states[-1][:, row, -1] - labels)
        for layer, half in itertools.product(reversed(range(len(self.masses))), ("neurons", "heads")):
            tokens, pulled = states[2 * layer + (half == "neurons")], costate.copy()
            for j, step in enumerate(size[layer]):
                at = (layer, j)
                if half == "neurons":
                    hidden = np.tanh(np.einsum("i,bin->bn", p["w_in"][at], tokens) + p["bias"][at])
                    slope = step * np.einsum("i,bin->bn", p["w_out"][at], costate) * (1 - hidden**2)
                    gradient["w_out"][at] = step * np.einsum("bin,bn->i", costate, hidden)
                    gradient["w_in"][at] = np.einsum("bn,bin->i", slope, tokens)
                    gradient["bias"][at] = slope.sum()
                    pulled += p["w_in"][at][:, None] * slope[:, None]
                    continue
                value, key, query = p["value"][at], p["key"][at], p["query"][at]
                shares = self.shares(tokens, key, query)
                # f = V T S, so dV = G (T S)ᵀ, and S meets C = (V T)ᵀ G.
                mixed = tokens @ shares
                gradient["value"][at] = step * np.einsum("bin,bjn->ij", costate, mixed)
                met = step * np.swapaxes(value @ tokens, 1, 2) @ costate
                # The softmax over keys: dZ = S ∘ (C − column sums of S ∘ C).
                scores = shares * (met - np.sum(shares * met, axis=1, keepdims=True)) / np.sqrt(len(key))
                # Z = (K T)ᵀ (Q T)/√k.
                on_keys = query @ tokens @ np.swapaxes(scores, 1, 2)
                on_queries = key @ tokens @ scores
                gradient["key"][at] = np.einsum("bkn,bin->ki", on_keys, tokens)
                gradient["query"][at] = np.einsum("bkn,bin->ki", on_queries, tokens)
                pulled += step * value.T @ costate @ np.swapaxes(shares, 1, 2) + key.T @ on_keys + query.T @ on_queries
            costate = pulled
        return gradient

    def velocity(self, particles: Particles, gradient: Particles, decay: float) -> Particles:
        """−(L/a) ∂R/∂θ − λθ for every particle."""
        masses = self.masses / len(self.masses)
        return {
            name: -gradient[name] / masses.reshape(masses.shape + (1,) * (leaf.ndim - 2)) - decay * leaf
            for name, leaf in particles.items()
        }

    def flow(self, start: Particles, labels: np.ndarray, row: int, decay: float, end: float) -> Particles:
        """The particles at τ = `end`, by DOP853 at relative tolerance 1e-12."""

        def field(tau, flat):
            particles = unpacked(flat, start)
            return packed(self.velocity(particles, self.gradient(particles, labels, row), decay))

        return unpacked(solve_ivp(field, (0, end), packed(start), "DOP853", rtol=1e-12, atol=1e-13).y[:, -1], start)


def packed(particles: Particles) -> np.ndarray:
    """All numbers of a dictionary as a vector."""
    return np.concatenate([leaf.ravel() for leaf in particles.values()])


def unpacked(flat: np.ndarray, like: Particles) -> Particles:
    """The inverse of `packed`."""
    ends = np.cumsum([leaf.size for leaf in like.values()])[:-1]
    parts = zip(like.items(), np.split(flat, ends), strict=True)
    return {name: part.reshape(leaf.shape) for (name, leaf), part in parts}


def complex_step(risk: Callable[[Particles], np.floating], particles: Particles) -> Particles:
    """The gradient Im R(θ + i h e)/h, exact to rounding: no difference is taken."""
    flat, height = packed(particles), 1e-30
    found = [risk(unpacked(flat + 1j * height * unit, particles)).imag / height for unit in np.eye(flat.size)]
    return unpacked(np.array(found), particles)


def equiangular_tokens(count: int, dim: int, overlap: float) -> np.ndarray:
    """Unit vectors `[dim, count]` whose pairwise inner products are all `overlap`, in general position."""
    gram = (1 - overlap) * np.eye(count) + overlap
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))[0]
    return turn[:, :count] @ np.linalg.cholesky(gram).T


def overlaps(start: float, beta: float, count: int, times: np.ndarray) -> np.ndarray:
    """The inner product ρ of equiangular tokens: ρ' = 2 e^{βρ} (1 − ρ)(1 + (n − 1)ρ) / (e^β + (n − 1) e^{βρ})."""

    def field(time, rho):
        weight = np.exp(beta * rho)
        return 2 * weight * (1 - rho) * (1 + (count - 1) * rho) / (np.exp(beta) + (count - 1) * weight)

    return solve_ivp(field, (0, times[-1]), [start], "DOP853", times, rtol=1e-13, atol=1e-14).y[0]


def best_scale(dim: int, examples: int) -> float:
    """a* = N/(N + d + 1): the best multiple of the one-step estimator."""
    return examples / (examples + dim + 1)


def population_loss(scale: np.ndarray, dim: int, examples: int) -> np.ndarray:
    """L(a) = ½ d (1 − 2a + a²/a*), for Gaussian inputs and tasks."""
    return dim / 2 * (1 - 2 * scale + scale**2 / best_scale(dim, examples))


def logistic_scale(start: float, dim: int, examples: int, taus: np.ndarray, constant: float = 1.0) -> np.ndarray:
    """The scale a(τ) of balanced heads (v, U) with a = c v u: a* / (1 + (a*/a₀ − 1) e^{−2 c √d τ})."""
    best = best_scale(dim, examples)
    return best / (1 + (best / start - 1) * np.exp(-2 * constant * np.sqrt(dim) * taus))


def cubic_time(start: float, end: np.ndarray, dim: int, examples: int, constant: float = 1.0) -> np.ndarray:
    """The τ at which a balanced head (V, K, Q) has a = `end`: a' = 3 c^{2/3} d^{1/3} a^{4/3} (1 − a/a*)."""
    best = best_scale(dim, examples)

    def primitive(a):
        z = np.cbrt(a / best)
        turn = np.arctan((2 * z + 1) / np.sqrt(3)) / np.sqrt(3)
        return -1 / z - np.log(1 - z) / 3 + np.log(1 + z + z**2) / 6 - turn

    return (primitive(np.asarray(end)) - primitive(start)) / (constant**2 * dim * best) ** (1 / 3)


def regression_design(dim: int, examples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens `[B, d + 1, N + 1]`, labels and weights with the moments of x ~ N(0, I), w ~ N(0, I) that training needs.

    An example is 0 with probability 2/(d + 2), and √(d + 2) e_i with 1/(d + 2) each: E x xᵀ = I and
    E |x|² x xᵀ = (d + 2) I, as for the Gaussian. The task is ±√d e_i and the query √d e_i, whose second moments are I;
    the signs make odd moments of the task vanish.
    """
    eye = np.eye(dim)
    inputs = [np.zeros(dim), *np.sqrt(dim + 2) * eye]
    chances = np.array([2.0, *np.ones(dim)]) / (dim + 2)
    tasks = [sign * np.sqrt(dim) * row for sign in (1, -1) for row in eye]
    tokens, labels, weights = [], [], []
    for places in itertools.product(range(dim + 1), repeat=examples):
        for task, query in itertools.product(tasks, np.sqrt(dim) * eye):
            x = np.stack([*(inputs[place] for place in places), query], axis=1)
            y = task @ x
            tokens.append(np.vstack([x, [*y[:-1], 0]]))
            labels.append(y[-1])
            weights.append(np.prod(chances[list(places)]) / (len(tasks) * dim))
    return np.array(tokens), np.array(labels), np.array(weights)


def gaussian_moments(
    mean: np.ndarray, covariance: np.ndarray, value: np.ndarray, product: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """m(t) `[times, d]` and Σ(t) `[times, d, d]`: m' = V (I + Σ A) m, Σ' = V Σ A Σ + Σ Aᵀ Σ Vᵀ."""
    dim = len(mean)

    def field(time, flat):
        m, s = flat[:dim], flat[dim:].reshape(dim, dim)
        drift = value @ s @ product
        return np.concatenate([value @ m + drift @ m, (drift @ s + s @ drift.T).ravel()])

    start = np.concatenate([mean, covariance.ravel()])
    y = solve_ivp(field, (0, times[-1]), start, "DOP853", times, rtol=1e-13, atol=1e-14).y.T
    return y[:, :dim], y[:, dim:].reshape(-1, dim, dim)


def hermite_cloud(mean: np.ndarray, covariance: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Points `[d, points^d]` and weights of the Gauss–Hermite product rule for N(mean, covariance)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    grid = np.array(list(itertools.product(nodes, repeat=len(mean)))).T
    masses = np.prod(np.array(list(itertools.product(weights, repeat=len(mean)))), axis=1)
    return mean[:, None] + np.linalg.cholesky(covariance) @ grid, masses / masses.sum()
