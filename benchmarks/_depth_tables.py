"""Convergence in depth: layers of the finite model, nodes of the measure, steps of the averaged ODE."""

import itertools
from collections.abc import Iterator

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from _problems import TIGHT, Regression, Scalar, rms, tokens_by_scipy
from _report import Check, Table, order_check, orders, slope

import wgf

# Solvers of the averaged ODE with their order, and the steps that lie between their first regular error and rounding.
SOLVERS = {
    "Euler": (diffrax.Euler(), 1, (16, 32, 64, 128, 256)),
    "Midpoint": (diffrax.Midpoint(), 2, (8, 16, 32, 64, 128)),
    "Heun": (diffrax.Heun(), 2, (8, 16, 32, 64, 128)),
    "Ralston": (diffrax.Ralston(), 2, (8, 16, 32, 64, 128)),
    "Bosh3": (diffrax.Bosh3(), 3, (4, 8, 16, 32, 64)),
    "Dopri5": (diffrax.Dopri5(), 5, (8, 16, 32, 64)),
    "Tsit5": (diffrax.Tsit5(), 5, (8, 16, 32, 64)),
    "Dopri8": (diffrax.Dopri8(), 8, (2, 3, 4, 6, 8)),
}
ROMBERG = (32, 64, 128, 256)


def depth_tables(quick: bool) -> Iterator[Table]:
    """All tables of this file."""
    problem = Regression(batch=4, examples=4, width=4) if quick else Regression()
    yield layers(problem, quick)
    yield nodes(problem, quick)
    yield steps(problem, quick)


def layers(problem: Regression, quick: bool) -> Table:
    """Finite model against the averaged ODE, at particles that are equal or smooth in depth."""
    depths = (8, 16, 32, 64) if quick else (8, 16, 32, 64, 128)
    tokens = problem.objective.prompts.tokens
    taus = np.array([0.0, 5.0])
    scalar = np.exp(Scalar().truth(taus)[-1]) * Scalar().objective.prompts.tokens[:, 0, -1]
    sample = problem.sample()
    constant = tokens_by_scipy(lambda t: sample, np.asarray(tokens))
    smooth = jax.jit(lambda t: jax.tree.map(lambda leaf: leaf[0], problem.at(t[None])))
    turning = tokens_by_scipy(lambda t: smooth(jnp.asarray(t)), np.asarray(tokens))

    def push(depth: int, particles):
        return wgf.Transformer(problem.encoder, wgf.measures.Layered(particles))(tokens)

    def trained(depth: int):
        return wgf.flow(Scalar().objective, Scalar().finite(depth), taus, **TIGHT).outputs[-1]

    cases = {
        "T(1), constant": [rms(push(n, problem.shared(n)), constant) for n in depths],
        "T(1), smooth": [rms(push(n, problem.at(jnp.arange(n) / n)), turning) for n in depths],
    }
    if not quick:
        cases["flow to τ = 5, scalar"] = [rms(trained(n), scalar) for n in depths]
    return _refinements(
        "Layers: error of the finite model against L, particles equal or smooth in depth",
        "L",
        {name: (depths, errors, 1) for name, errors in cases.items()},
        "Order 1 in Δt = 1/L. Truths: encoders in NumPy and the scalar ODE, solved by SciPy's DOP853 at 1e-13.",
    )


def nodes(problem: Regression, quick: bool) -> Table:
    """Outputs after a flow against the number of nodes of the spectral measure."""
    objective, end = problem.objective, 4.0
    truth = _romberg(problem, objective, end, (16, 32) if quick else ROMBERG)
    counts = (1, 2) if quick else (1, 2, 3, 4, 5)
    rows, checks = [], []
    for rule in ("gauss",) if quick else ("gauss", "lobatto"):
        used = [n + (rule == "lobatto") for n in counts]
        errors = [rms(_outputs(problem, objective, end, n, rule), truth) for n in used]
        factors = [None, *(a / b for a, b in itertools.pairwise(errors))]
        rows += [(rule, *row) for row in zip(used, errors, factors, strict=True)]
        # The last node of all may already meet the truth's own error.
        checks.append(Check(f"{rule} nodes: least gain of a node", min(f for f in factors[1:4] if f), 5.0, np.inf))
    return Table(
        "Nodes: error of the outputs at τ = 4 against depth nodes of the spectral measure",
        ("rule", "nodes", "error", "gain"),
        rows,
        "Geometric in the nodes. Truth: finite models of up to 256 layers from the same particles, extrapolated to "
        f"1/L = 0; labels have RMS {float(jnp.sqrt(jnp.mean(objective.prompts.labels**2))):.2f}.",
        checks,
    )


def _outputs(problem: Regression, objective, end: float, count: int, rule: str):
    measure = wgf.measures.Spectral(problem.shared(count), rule=rule)
    model = wgf.AveragedODE(problem.encoder, measure, steps=6)
    return wgf.flow(objective, model, [0.0, end], **TIGHT).outputs[-1]


def _romberg(problem: Regression, objective, end: float, depths):
    """Outputs of finite models with equal starts in every layer, extrapolated in powers of 1/L."""
    rows = []
    for depth in depths:
        model = wgf.Transformer(problem.encoder, wgf.measures.Layered(problem.shared(depth)))
        rows.append(np.asarray(wgf.flow(objective, model, [0.0, end], solver=diffrax.Dopri8(), **TIGHT).outputs[-1]))
    for power in range(1, len(rows)):
        rows = [(2**power * fine - coarse) / (2**power - 1) for coarse, fine in itertools.pairwise(rows)]
    return rows[0]


def steps(problem: Regression, quick: bool) -> Table:
    """Constant steps of the averaged ODE against SciPy, for the tokens, and against many steps, for the velocity."""
    tokens = problem.objective.prompts.tokens
    measure = wgf.measures.Spectral(problem.at(wgf.measures.Spectral(problem.shared(4)).depths))
    truth = tokens_by_scipy(jax.jit(lambda t: measure.at(t)[0]), np.asarray(tokens))
    exact = wgf.velocity(
        problem.objective, wgf.AveragedODE(problem.encoder, measure, solver=diffrax.Dopri8(), steps=16)
    )
    chosen = {name: SOLVERS[name] for name in (("Heun", "Tsit5") if quick else SOLVERS)}
    cases = {}
    for name, (solver, order, counts) in chosen.items():
        counts = counts[:4] if quick else counts
        models = [wgf.AveragedODE(problem.encoder, measure, solver=solver, steps=n) for n in counts]
        cases[f"{name}, T(1)"] = counts, [rms(model(tokens), truth) for model in models], order
        if name in ("Euler", "Heun", "Bosh3", "Tsit5") and not quick:
            found = [rms(wgf.velocity(problem.objective, model), exact) for model in models]
            cases[f"{name}, velocity"] = counts, found, order
    return _refinements(
        "Steps: error of the averaged ODE against the constant steps of its solver",
        "steps",
        cases,
        "Particles turn with depth (4 nodes). Truth of T(1): encoders in NumPy, DOP853 by SciPy at 1e-13; of the "
        "velocity: Dopri8 at 16 steps.",
    )


def _refinements(title: str, size: str, cases: dict, note: str) -> Table:
    """A table of errors over refinements: {case: (sizes, errors, expected order)}."""
    rows, checks = [], []
    for name, (sizes, errors, expected) in cases.items():
        rows += [(name, *row) for row in zip(sizes, errors, _positive(orders(sizes, errors)), strict=True)]
        # The last three sizes: the first are before errors fall as their leading term does.
        checks.append(order_check(f"{name}: order in {size}", -slope(sizes[-3:], errors[-3:]), expected))
    return Table(title, ("case", size, "error", "order"), rows, note, checks)


def _positive(found):
    return [None if order is None else -order for order in found]
