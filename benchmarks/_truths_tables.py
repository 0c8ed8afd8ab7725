"""Exact truths, each derived in docs/theory/truths.md: NumPy, SciPy and closed forms against the library."""

import itertools
from collections.abc import Iterator

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from _report import Check, Table, orders, slope
from _transfer_tables import transfer
from _truths import (
    complex_step,
    cubic_time,
    equiangular_tokens,
    gaussian_moments,
    hermite_cloud,
    logistic_scale,
    overlaps,
    regression_design,
)
from _truths_models import (
    DECAY,
    OnSphere,
    attention_problem,
    cloud,
    difference,
    linear_constant,
    merged_model,
    merged_scales,
    plain,
    sampled_scales,
    sphere,
    sphere_law,
    split_model,
    split_scales,
    weighted,
)

import wgf

TIGHT = {"rtol": 1e-11, "atol": 1e-13}


def truths_tables(quick: bool) -> Iterator[Table]:
    """All tables of this file."""
    yield trained_attention(quick)
    yield equal_angles(quick)
    yield linear_attention(quick)
    yield sampled_prompts(quick)
    yield gaussian_quadrature(quick)
    yield gaussian_samples(quick)
    yield transfer(quick)


def trained_attention(quick: bool) -> Table:
    """Gradient, velocity and flow of a softmax Transformer against NumPy and SciPy."""
    rows = []
    for seed in (0,) if quick else (0, 1, 2, 3):
        objective, model, twin = attention_problem(seed)
        particles, labels = plain(model.measure.particles), np.asarray(objective.prompts.labels)
        row, end = objective.prompts.label_row, 4.0
        by_hand = twin.gradient(particles, labels, row)
        by_complex_step = complex_step(lambda p, twin=twin, y=labels, row=row: twin.half_squares(p, y, row), particles)
        truth = twin.flow(particles, labels, row, DECAY, end)
        solution = wgf.flow(objective, model, np.array([0.0, end]), solver=diffrax.Dopri8(), rtol=1e-11, atol=1e-12)
        rows.append(
            (
                seed,
                difference(by_hand, by_complex_step),
                difference(plain(wgf.velocity(objective, model)), twin.velocity(particles, by_hand, DECAY)),
                difference(plain(solution.model_at(-1).measure.particles), truth),
                difference(truth, particles),
            )
        )
    worst = np.max(np.array(rows, float), axis=0)
    checks = [
        Check("NumPy's gradient by hand against the complex step", worst[1], 0.0, 1e-12),
        Check("velocity of softmax attention against NumPy", worst[2], 0.0, 1e-12),
        Check("flow of softmax attention against NumPy and SciPy", worst[3], 0.0, 1e-8),
        Check("how far that flow moves, least", min(row[4] for row in rows), 0.05, np.inf),
    ]
    return Table(
        "Trained softmax attention against NumPy and SciPy",
        ("seed", "by hand − complex step", "velocity", "particles at τ = 4", "moved"),
        rows,
        "Attention and tanh perceptron, L = 3, M = 2, unequal weights of prompts and particles, λ = 1e-2. Greatest "
        "difference over the greatest number. Truth: forward and backward pass in NumPy, the flow by SciPy's DOP853 at "
        "1e-12. Flow of the library: Dopri8 at 1e-11.",
        checks,
    )


def equal_angles(quick: bool) -> Table:
    """Inner products of tokens on the sphere: the limit in depth steps, the layers in L."""
    rows, checks = [], []
    cases = [(5, 6, 1.0, 3.0, 0.1), (5, 6, 2.0, 4.0, -0.2), (3, 3, 9.0, 4.0, 0.3)]
    for count, dim, beta, end, start in cases[:1] if quick else cases:
        tokens, times = jnp.asarray(equiangular_tokens(count, dim, start))[None], np.linspace(0, 1, 6)
        truth = np.where(np.eye(count, dtype=bool), 1.0, overlaps(start, beta, count, end * times)[:, None, None])
        encoder, case = OnSphere(wgf.encoders.SoftmaxAttention(dim, key_dim=dim)), f"n = {count}, β = {beta:g}"

        def error(states, truth=truth):
            return float(np.abs(np.swapaxes(states, -1, -2) @ states - truth[-len(states) :]).max())

        steps = (4, 8, 16) if quick else (4, 8, 16, 32)
        found = [error(np.asarray(sphere(dim, beta, end, n).trajectory(tokens, times))[:, 0]) for n in steps]
        layers = (32, 64, 128, 256)
        finite = [error(np.asarray(wgf.Transformer(encoder, sphere_law(dim, beta, end, n))(tokens))) for n in layers]
        rows += [(case, "limit, Dopri8", *row) for row in zip(steps, found, orders(steps, found), strict=True)]
        rows += [(case, "layers", *row) for row in zip(layers, finite, orders(layers, finite), strict=True)]
        checks.append(Check(f"equal angles, {case}: error of the limit", found[-1], 0.0, 2e-9))
        checks.append(Check(f"equal angles, {case}: order in L", -slope(layers, finite), 0.9, 1.1))
    return Table(
        "Tokens at equal angles on the sphere",
        ("case", "model", "steps or layers", "error", "order"),
        [(*row[:4], None if row[4] is None else -row[4]) for row in rows],
        "An encoder of a user's own: softmax attention, V = I, projected on the tangent space. Error: of inner "
        "products, the greatest over all pairs of tokens and six depths (layers: at the end). Truth: the scalar "
        "ODE, by SciPy's DOP853 at 1e-13.",
        checks,
    )


def linear_attention(quick: bool) -> Table:
    """The scale of trained linear attention on the population, at nine τ."""
    rows, taus = [], np.linspace(0, 4, 9)
    for dim, examples in ((2, 2),) if quick else ((1, 3), (2, 2), (2, 3), (3, 2), (4, 2)):
        tokens, labels, weights = regression_design(dim, examples)
        objective = wgf.Objective(wgf.prompts.Prompts(tokens, labels, label_row=dim, weights=weights))
        for starts in (np.array([0.05]), np.array([0.02, 0.05, 0.11])):
            solution = wgf.flow(objective, merged_model(dim, examples, starts), taus, **TIGHT)
            scales = merged_scales(solution.models.measure.particles, dim, examples)[:, 0].mean(axis=1)
            constant = linear_constant(dim, examples, dim + 1)
            truth = logistic_scale(starts.mean(), dim, examples, taus, constant)
            error = float(np.abs(scales - truth).max())
            rows.append((dim, examples, len(labels), f"(V, U), {len(starts)}", scales[0], scales[-1], error))
        solution = wgf.flow(objective, split_model(dim, examples, 0.05), taus, **TIGHT)
        scales = split_scales(solution.models.measure.particles, dim, examples)[:, 0, 0]
        times = cubic_time(0.05, scales, dim, examples, linear_constant(dim, examples, dim))
        rows.append(
            (dim, examples, len(labels), "(V, K, Q), 1", scales[0], scales[-1], float(np.abs(times - taus).max()))
        )
    merged = max(row[6] for row in rows if "U" in row[3])
    split = max(row[6] for row in rows if "K" in row[3])
    return Table(
        "Linear attention on in-context regression, the population",
        ("d", "N", "prompts", "heads", "a at τ = 0", "a at τ = 4", "error"),
        rows,
        "Prompts: a finite weighted set with the population's moments. (V, U): merged key and query, error of a(τ) "
        "from the logistic curve. (V, K, Q): the library's head, error of τ(a) from the closed form. Errors: the "
        "greatest at nine τ. Flow: Tsit5 at rtol 1e-11.",
        [
            Check("linear attention, merged: error of a", merged, 0.0, 1e-9),
            Check("linear attention, the library's head: error of τ", split, 0.0, 1e-8),
        ],
    )


def sampled_prompts(quick: bool) -> Table:
    """The same on prompts drawn by the library: the error falls at the sampling rate."""
    sizes, start, tau = (2, 3), 0.05, 6.0
    counts, seeds = ((64, 256, 1024), 16) if quick else ((64, 256, 1024, 4096), 32)
    constant = linear_constant(*sizes, sizes[0] + 1)
    truth = float(logistic_scale(start, *sizes, np.array([tau / sizes[0]]), constant)[0])
    keys, errors, means = jax.random.split(jax.random.key(5), seeds), [], []
    for count in counts:
        found = sampled_scales(keys, count, counts[-1], sizes, start, tau)
        errors.append(float(np.sqrt(np.mean((found - truth) ** 2))))
        means.append(float(found.mean()))
    return Table(
        "Linear attention on in-context regression, sampled prompts",
        ("prompts", "mean of a", "truth", "RMS error", "order"),
        [
            (*row[:4], None if row[4] is None else -row[4])
            for row in zip(counts, means, [truth] * len(counts), errors, orders(counts, errors), strict=True)
        ],
        f"`wgf.prompts.linear_regression`, d = 2, N = 3, Gaussian inputs, τ = {tau:g}, {seeds} seeds. Its tasks are "
        "unit vectors, so training is d times slower than for Gaussian tasks.",
        [Check("linear attention, sampled prompts: order in B", -slope(counts, errors), 0.4, 0.6)],
    )


MEAN = np.array([0.3, -0.2])
COVARIANCE = np.array([[0.5, 0.1], [0.1, 0.3]])
VALUE = np.array([[0.4, -0.5], [0.3, 0.2]])
PRODUCT = np.array([[0.6, 0.3], [-0.4, 0.5]])


def moments(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean `[..., d]` and covariance `[..., d, d]` of points `[..., d, n]`."""
    mean = points @ weights
    centred = points - mean[..., None]
    return mean, (centred * weights) @ np.swapaxes(centred, -1, -2)


def gaussian_quadrature(quick: bool) -> Table:
    """Tokens that are a quadrature rule of the Gaussian: the error falls faster than any power."""
    rows, depths = [], np.linspace(0, 1, 5)
    truth = gaussian_moments(MEAN, COVARIANCE, VALUE, PRODUCT, depths)
    for points in (4, 8, 12) if quick else (3, 4, 6, 8, 10, 12, 16):
        start, weights = hermite_cloud(MEAN, COVARIANCE, points)
        states = cloud(VALUE, PRODUCT, 8).trajectory(weighted(start, weights)[None], depths)
        found = moments(np.asarray(states)[:, 0, :2], weights)
        rows.append((points**2, *(float(np.abs(a - b).max()) for a, b in zip(found, truth, strict=True))))
    gain = min(before[2] / after[2] for before, after in itertools.pairwise(rows) if after[2] > 1e-12)
    return Table(
        "Gaussian tokens under softmax attention, quadrature",
        ("tokens", "error of the mean", "error of the covariance"),
        rows,
        "Tokens at the nodes of a Gauss–Hermite rule; the logarithm of a weight is part of the score. Greatest errors "
        "at five depths. Truth: the ODE of mean and covariance, SciPy's DOP853 at 1e-13.",
        [
            Check("Gaussian tokens, quadrature: error of the finest rule", max(rows[-1][1:]), 0.0, 1e-10),
            Check("Gaussian tokens, quadrature: least gain of a refinement", gain, 5.0, np.inf),
        ],
    )


def gaussian_samples(quick: bool) -> Table:
    """Independent Gaussian tokens of equal weight: the error falls at the sampling rate."""
    counts, draws = ((16, 64, 256), 64) if quick else ((16, 64, 256, 1024), 256)
    random, errors = np.random.default_rng(1), []
    truth = [moment[-1] for moment in gaussian_moments(MEAN, COVARIANCE, VALUE, PRODUCT, np.array([0.0, 1.0]))]
    for count in counts:
        weights, parts = np.full(count, 1 / count), []
        for _ in range(draws // 16):
            points = MEAN[:, None] + np.linalg.cholesky(COVARIANCE) @ random.normal(size=(16, 2, count))
            parts.append(np.asarray(cloud(VALUE, PRODUCT, 1)(weighted(points, weights)))[:, :2])
        found = moments(np.concatenate(parts), weights)
        errors.append([float(np.sqrt(np.mean((a - b) ** 2))) for a, b in zip(found, truth, strict=True)])
    mean, covariance = zip(*errors, strict=True)
    return Table(
        "Gaussian tokens under softmax attention, samples",
        ("tokens", "RMS error of the mean", "RMS error of the covariance"),
        [(count, *row) for count, row in zip(counts, errors, strict=True)],
        f"Independent tokens of equal weight, {draws} draws, at depth 1.",
        [
            Check("Gaussian tokens, samples: order of the mean in N", -slope(counts, mean), 0.4, 0.6),
            Check("Gaussian tokens, samples: order of the covariance in N", -slope(counts, covariance), 0.4, 0.6),
        ],
    )
