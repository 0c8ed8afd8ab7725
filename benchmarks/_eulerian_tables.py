"""The PDE on a grid against its particle solution and closed forms, and noise against Gibbs laws, as tables.

Each function takes a minute or two and returns a `Table`: a title, columns, rows, and what is to be seen.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _report import Check, Table, slope as fitted
from scipy.integrate import solve_ivp
from scipy.special import ndtr, ndtri
from scipy.stats import norm, qmc

import wgf
from wgf.encoders import Neuron, Perceptron
from wgf.measures import Eulerian, Gaussian, Layered, Spectral, coordinates

# A neuron on scalar tokens, θ = (w_in, w_out, b): P = 3. The law starts off centre, confined to a box of 4 to 6
# standard deviations each way.
CENTRE, SCALE, LOWER, UPPER = np.array([0.3, 0.2, -0.2]), 0.7, -3.5, 3.5
TAU, DECAY = 4.0, 0.02


def eulerian_tables(quick: bool) -> Iterator[Table]:
    """All tables of this file."""
    yield eulerian_closed_form(0.0, (24, 36, 54, 81) if quick else (24, 48, 96, 192, 384))
    yield langevin_stationary(*((2_000, 2) if quick else (20_000, 4)))
    if not quick:
        yield eulerian_closed_form(0.2)
        yield eulerian_refinement()
        yield langevin_agreement()


class Scalar(wgf.encoders.AbstractEncoder):
    """The linear encoder h(T, w) = w T on scalar tokens."""

    def sample(self, key, shape):
        """Draw standard normal numbers."""
        return jax.random.normal(key, shape)

    def __call__(self, particle, tokens):
        """Multiply."""
        return particle * tokens


def eulerian_closed_form(temperature: float = 0.0, cells: Sequence[int] = (24, 48, 96, 192, 384)) -> Table:
    """One coordinate: the law stays Gaussian, with a mean from a scalar ODE and an Ornstein–Uhlenbeck variance."""
    h, decay, spread, taus = np.array([0.5, 1.0, -0.8]), 0.3, 0.5, [0.0, 2.0]
    objective = wgf.Objective(_scalar_prompts(h, 1.7 * h), decay)

    def slope(tau, u):
        return [-np.mean((np.exp(u[0]) - 1.7) * np.exp(u[0]) * h**2) - decay * u[0]]

    mean = solve_ivp(slope, taus, [0.0], "DOP853", rtol=1e-12, atol=1e-13).y[0, -1]
    variance = temperature / decay + (spread**2 - temperature / decay) * np.exp(-2 * decay * taus[-1])
    truth = norm(mean, np.sqrt(variance))
    q = np.mean(((np.exp(mean) - 1.7) * h) ** 2) / 2 + decay / 2 * (mean**2 + variance)
    levels = (np.arange(100_000) + 0.5) / 100_000
    errors = []
    for n in cells:
        grid = Gaussian(Scalar(), spread).eulerian(1, (n,), -5.0, 5.0)
        solution = wgf.flow(
            objective, wgf.AveragedODE(Scalar(), grid, steps=4), taus, temperature=temperature, rtol=1e-6
        )
        measure = solution.model_at(-1).measure
        w2 = np.sqrt(np.mean((_quantiles(measure, 0, 0, levels) - truth.ppf(levels)) ** 2))
        found, second = _moments(measure)
        errors.append(_absolute(solution.objective[-1] - q, found - mean, second - mean**2 - variance, w2))
    names = ("Q", "mean", "second moment", "W2")
    return Table(
        f"The PDE on a line, temperature {temperature:g}: errors against the closed form at τ = 2",
        ("cells", *_with_orders(*names)),
        _ordered(cells, errors),
        "Second order.",
        [
            # The mean gains an order: errors of the two flanks of a law cancel in it.
            Check(
                f"grid on a line, temperature {temperature:g}: order of {name}",
                -fitted(cells, column),
                1.7,
                4.2 if name == "mean" else 2.3,
            )
            for name, column in zip(names, zip(*errors, strict=True), strict=True)
        ],
    )


def eulerian_refinement(nodes: int = 2, cells: Sequence[int] = (8, 12, 16, 24, 32)) -> Table:
    """Three coordinates: Q, moments and the W₂ of marginals at each depth node, against the particle solution."""
    objective = neuron_objective()
    taus = [0.0, TAU]
    atoms = particle_reference(nodes)
    truth = wgf.flow(objective, _limit(atoms), taus, rtol=1e-6, atol=1e-8)
    final = truth.model_at(-1).measure
    mean, second = _moments(final)
    clouds = coordinates(final.particles)[:, _points(atoms) :]
    errors = []
    for n in cells:
        solution = wgf.flow(objective, _limit(neuron_grid(n, nodes)), taus)
        measure = solution.model_at(-1).measure
        found = _moments(measure)
        distances = [marginal_distance(measure, i, clouds[i]) for i in range(nodes)]
        errors.append(
            _absolute(solution.objective[-1] - truth.objective[-1], found[0] - mean, found[1] - second, *distances)
        )
    drop = float(truth.objective[0] - truth.objective[-1])
    names = ["Q", "mean", "second moment", *(f"W2 node {i + 1}" for i in range(nodes))]
    return Table(
        f"The PDE on a grid of n^3 cells against particles at τ = {TAU:g}, {nodes} depth nodes",
        ("n", *_with_orders(*names)),
        _ordered(cells, errors),
        f"Q falls by {drop:.4f}; second moment {np.sum(second):.4f}. W2: of the three marginals, root sum of squares.",
        [
            Check(f"grid against particles, three coordinates: order of {name}", -fitted(cells, column), 1.5, 2.8)
            for name, column in zip(names, zip(*errors, strict=True), strict=True)
        ],
    )


def langevin_stationary(particles: int = 20_000, seeds: int = 4) -> Table:
    """The variance at rest of particles without effect, V = λ/2 θ², over its Gibbs value σ/λ."""
    decay, temperature, taus = 0.5, 0.3, [0.0, 16.0]
    objective = wgf.Objective(_scalar_prompts(np.zeros(1), np.zeros(1)), decay)
    law = Gaussian(Scalar(), 0.2)
    finite = wgf.Transformer(Scalar(), law.layered(4, particles // 4, jax.random.key(2)))
    limit = wgf.AveragedODE(Scalar(), law.spectral(2, particles, jax.random.key(3)), steps=1)
    grid = wgf.AveragedODE(Scalar(), law.eulerian(2, (64,), -5.0, 5.0), steps=1)
    rows = []
    for name, model, step in (("finite", finite, 0.1), ("finite", finite, 0.8), ("limit", limit, 0.1)):
        sample = []
        for seed in range(seeds):
            options = {"temperature": temperature, "key": jax.random.key(seed), "dt0": step}
            theta = wgf.flow(objective, model, taus, **options).model_at(-1).measure.particles
            sample.append(np.ravel(theta if name == "finite" else theta[0]))
        ratio = np.var(sample) * decay / temperature
        rows.append((name, step, ratio, heun_variance(decay, step), np.sqrt(2 / np.size(sample))))
    measure = wgf.flow(objective, grid, taus, temperature=temperature).model_at(-1).measure
    gibbs = jax.nn.softmax(-decay / 2 * measure.particles[0] ** 2 / temperature)
    expected = float(jnp.sum(gibbs * measure.particles[0] ** 2)) * decay / temperature
    rows.append(("grid", None, float(_moments(measure)[1][0]) * decay / temperature, expected, 0.0))
    off = float(jnp.max(jnp.sum(jnp.abs(measure.weights - gibbs), axis=1)))
    return Table(
        "Langevin dynamics at rest in a quadratic potential: variance over σ/λ",
        ("model", "step", "measured", "predicted", "standard error"),
        rows,
        "Predicted: Heun's own stationary variance at that step; on the grid, the Gibbs law's at the cells' centres, "
        f"from which the solution is {off:.1e} away in total variation.",
        [
            *(
                Check(
                    f"Langevin at rest, {name}, step {step:g}: (measured - predicted) / error", (a - b) / error, -4, 4
                )
                for name, step, a, b, error in rows[:-1]
            ),
            Check("Langevin at rest, grid: total variation to the Gibbs law", off, 0.0, 1e-4),
        ],
    )


def langevin_agreement(temperature: float = 0.05, cells: Sequence[int] = (12, 16, 24), seeds: int = 4) -> Table:
    """Three coordinates with noise: the Fokker–Planck equation on grids against Langevin particles."""
    objective, taus = neuron_objective(), [0.0, TAU]
    rows = []
    for n in cells:
        solution = wgf.flow(objective, _limit(neuron_grid(n, 1)), taus, temperature=temperature)
        rows.append((f"grid {n}^3", *_summary(solution), *[None] * 4))
    runs = []
    for seed in range(seeds):
        model = _limit(sobol_cloud(4096, seed))
        noise = {"temperature": temperature, "key": jax.random.key(seed), "dt0": 0.05}
        runs.append(_summary(wgf.flow(objective, model, taus, **noise)))
    spread = np.std(runs, axis=0, ddof=1) / np.sqrt(seeds)
    rows.append((f"{seeds} x 4096 particles", *np.mean(runs, axis=0), *spread))
    names = ("Q", "E w_in²", "E w_out²", "E b²")
    return Table(
        f"Fokker-Planck on a grid against Langevin particles at τ = {TAU:g}, temperature {temperature:g}",
        ("solution", *names, *(f"± {name}" for name in names)),
        rows,
        "± standard errors of the mean over seeds.",
        [
            Check(f"Fokker-Planck, finest grid against Langevin particles: {name}, relative", a / b - 1, -0.02, 0.02)
            for name, a, b in zip(names, rows[-2][1:], rows[-1][1:], strict=False)
        ],
    )


def neuron_objective() -> wgf.Objective:
    """Six prompts of one example, y = x + sin 2x."""
    x = np.linspace(-1.5, 1.5, 6)
    return wgf.Objective(_scalar_prompts(x, x + np.sin(2 * x)), DECAY)


def neuron_grid(n: int, nodes: int) -> Eulerian:
    """The initial law's exact masses in n³ cells."""
    edges = (np.linspace(LOWER, UPPER, n + 1)[:, None] - CENTRE) / SCALE
    masses = np.einsum("i,j,k->ijk", *(np.diff(ndtr(edges), axis=0) / np.diff(ndtr(edges[[0, -1]]), axis=0)).T)
    low, high = (_neurons(np.full(3, end)) for end in (LOWER, UPPER))
    return Eulerian(low, high, np.broadcast_to(masses, (nodes, n, n, n)))


def particle_reference(nodes: int, points: int = 22, tracers: int = 2**14) -> Spectral:
    """The same law at the points of a tensor Gauss rule, and Sobol points of weight 0 that show its shape."""
    x, w = np.polynomial.legendre.leggauss(points)
    x = LOWER + (UPPER - LOWER) * (x + 1) / 2
    density = w[:, None] * norm.pdf(x[:, None], CENTRE, SCALE)
    weights = np.einsum("i,j,k->ijk", *density.T).ravel()
    grid = np.stack(np.meshgrid(x, x, x, indexing="ij"), -1).reshape(-1, 3)
    places = np.concatenate([grid, _sobol(tracers, 0)])
    weights = np.concatenate([weights / weights.sum(), np.zeros(tracers)])
    return Spectral(_neurons(np.broadcast_to(places, (nodes, *places.shape))), weights)


def sobol_cloud(count: int, seed: int) -> Spectral:
    """The same law as scrambled Sobol points at one depth node."""
    return Spectral(_neurons(_sobol(count, seed)[None]))


def marginal_distance(measure: Eulerian, node: int, cloud: np.ndarray) -> float:
    """The root of the summed W₂² of marginals: at most W₂, and W₂ itself for laws with independent coordinates."""
    levels = (np.arange(len(cloud)) + 0.5) / len(cloud)
    squares = [
        np.mean((_quantiles(measure, node, axis, levels) - np.sort(cloud[:, axis])) ** 2)
        for axis in range(cloud.shape[1])
    ]
    return float(np.sqrt(np.sum(squares)))


def heun_variance(decay: float, step: float) -> float:
    """The stationary variance of Heun's method for dθ = −λθ dτ + √(2σ) dW, over σ/λ."""
    z = decay * step
    return float(2 * z * (1 - z / 2) ** 2 / (1 - (1 - z + z**2 / 2) ** 2))


def _scalar_prompts(x: np.ndarray, labels: np.ndarray) -> wgf.prompts.Prompts:
    tokens = np.stack([np.zeros_like(x), x], axis=1)[:, None]
    return wgf.prompts.Prompts(tokens, labels, label_row=0)


def _neurons(places: np.ndarray) -> Neuron:
    return Neuron(places[..., :1], places[..., 1:2], places[..., 2])


def _sobol(count: int, seed: int) -> np.ndarray:
    points = qmc.Sobol(3, rng=np.random.default_rng(seed)).random(count)
    low, high = ndtr((LOWER - CENTRE) / SCALE), ndtr((UPPER - CENTRE) / SCALE)
    return CENTRE + SCALE * ndtri(low + (high - low) * points)


def _limit(measure: Eulerian | Spectral | Layered) -> wgf.AveragedODE:
    return wgf.AveragedODE(Perceptron(1), measure, steps=1)


def _points(measure: Spectral) -> int:
    return int(jnp.sum(measure.weights[0] > 0))


def _quantiles(measure: Eulerian, node: int, axis: int, levels: np.ndarray) -> np.ndarray:
    """Quantiles of a marginal, uniform within each cell."""
    masses = np.asarray(measure.weights[node]).reshape(measure.cells)
    marginal = masses.sum(axis=tuple(k for k in range(masses.ndim) if k != axis))
    low, high = (
        float(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(c)])[axis]) for c in _corners(measure)
    )
    return np.interp(levels, np.concatenate([[0.0], np.cumsum(marginal)]), np.linspace(low, high, len(marginal) + 1))


def _corners(measure: Eulerian):
    return measure.lower, measure.upper


def _moments(measure) -> tuple[np.ndarray, np.ndarray]:
    """First and second moments of each coordinate."""
    places = coordinates(measure.particles)
    return tuple(np.asarray(jnp.sum(measure.masses[..., None] * places**k, axis=(0, 1))) for k in (1, 2))


def _summary(solution) -> list[float]:
    return [float(solution.objective[-1]), *map(float, _moments(solution.model_at(-1).measure)[1])]


def _absolute(*errors) -> list[float]:
    return [float(np.linalg.norm(error)) for error in errors]


def _with_orders(*names: str) -> list[str]:
    return [column for name in names for column in (name, "order")]


def _ordered(cells: Sequence[int], errors: Sequence[Sequence[float]]) -> list[list[Any]]:
    """Rows of errors, each with the order seen since the row before."""
    orders = -np.diff(np.log(errors), axis=0) / np.diff(np.log(cells))[:, None]
    rows: list[list[Any]] = []
    for i, (n, row) in enumerate(zip(cells, errors, strict=True)):
        rows.append([n, *(v for k, e in enumerate(row) for v in (e, float(orders[i - 1, k]) if i else None))])
    return rows
