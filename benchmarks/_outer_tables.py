"""Convergence in training time: tolerances and steps of the outer solve, pollution by the inner, energy, symmetry."""

from collections.abc import Iterator

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _problems import Regression, Scalar, flow_by_scipy, worst
from _report import Check, Table, order_check, orders, slope

import wgf

END = 8.0
SOON = 2.0  # for constant steps: later the scalar flow has forgotten its errors
SOLVERS = {
    "Heun": (diffrax.Heun(), (1e-3, 1e-4, 1e-5, 1e-6)),
    "Bosh3": (diffrax.Bosh3(), (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)),
    "Dopri5": (diffrax.Dopri5(), (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)),
    "Tsit5": (diffrax.Tsit5(), (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)),
    "Dopri8": (diffrax.Dopri8(), (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)),
    "RKC": (wgf.flows.RKC(), (1e-3, 1e-4, 1e-5, 1e-6)),
}
CONSTANT = {
    "Euler": (diffrax.Euler(), 1, (32, 64, 128, 256, 512)),
    "Heun": (diffrax.Heun(), 2, (16, 32, 64, 128, 256)),
    "Bosh3": (diffrax.Bosh3(), 3, (8, 16, 32, 64, 128)),
    "Tsit5": (diffrax.Tsit5(), 5, (4, 8, 16, 32, 64)),
    "Dopri8": (diffrax.Dopri8(), 8, (2, 3, 4, 6, 8)),
    "RKC": (wgf.flows.RKC(), 2, (8, 16, 32, 64, 128)),
}


def outer_tables(quick: bool) -> Iterator[Table]:
    """All tables of this file."""
    problem = Regression(batch=4, examples=4, width=4) if quick else Regression(width=12)
    yield tolerances(problem, quick)
    yield constant_steps(quick)
    yield identities(problem, quick)
    if not quick:
        yield pollution()


def tolerances(problem: Regression, quick: bool) -> Table:
    """The true error at the end against rtol, for adaptive outer solvers.

    It goes as rtol where the step is the better of a pair of methods, whose difference is what is bounded. RKC bounds
    its own error of a step, h³, so that the error at the end goes as h² = rtol^(2/3).
    """
    objective, model = problem.objective, problem.limit(2)
    truth = flow_by_scipy(objective, model, END)
    rows, checks = [], []
    for name, (solver, rtols) in ({"Tsit5": SOLVERS["Tsit5"]} if quick else SOLVERS).items():
        rtols = rtols[:4] if quick else rtols
        errors = []
        for rtol in rtols:
            solution = _flow(objective, model, rtol, solver=solver)
            errors.append(worst(solution.model_at(-1).measure.particles, truth))
            rows.append((name, rtol, *_steps(solution), errors[-1], errors[-1] / rtol))
        checks += [
            Check(f"{name}: slope of error against rtol", slope(rtols, errors), 0.55 if name == "RKC" else 0.7, 1.3),
            Check(f"{name}: greatest error / rtol", max(e / r for e, r in zip(errors, rtols, strict=True)), 0.0, 10.0),
        ]
    return Table(
        f"Tolerance: the worst particle's error at τ = {END:g} against rtol (atol = rtol/100)",
        ("solver", "rtol", "steps", "rejected", "error", "error/rtol"),
        rows,
        "In proportion to rtol. Truth: DOP853 by SciPy at 1e-12 on plain automatic differentiation of Q.",
        checks,
    )


def constant_steps(quick: bool) -> Table:
    """Constant outer steps on the scalar problem."""
    problem, model = Scalar(), Scalar().limit()
    truth = problem.truth(np.array([0.0, SOON]))[-1]
    rows, checks = [], []
    for name in ("Tsit5",) if quick else CONSTANT:
        solver, order, counts = CONSTANT[name]
        options = {"solver": solver, "controller": diffrax.ConstantStepSize()}
        errors = [
            abs(
                wgf.flow(problem.objective, model, [0.0, SOON], dt0=SOON / n, **options)
                .model_at(-1)
                .measure.particles[0, 0, 0, 0]
                - truth
            ).item()
            for n in counts
        ]
        found = [None if o is None else -o for o in orders(counts, errors)]
        rows += [(name, *row) for row in zip(counts, errors, found, strict=True)]
        measured = -slope(counts[-4:], errors[-4:])
        checks.append(order_check(f"{name}: outer order, constant steps", measured, order))
    return Table(
        f"Constant outer steps: error of the scalar flow at τ = {SOON:g}",
        ("solver", "steps", "error", "order"),
        rows,
        "Truth: the scalar ODE by SciPy's DOP853 at 1e-13. Checks fit the last four refinements.",
        checks,
    )


def pollution() -> Table:
    """Outer steps at fixed rtol against the accuracy of the inner solve, constant and adaptive."""
    # Larger particles, so that an adaptive solve takes several steps and changes their number along the flow.
    problem, rtol = Regression(batch=4, examples=4, width=4, scale=1.3), 1e-6
    objective = problem.objective
    truth = flow_by_scipy(objective, problem.limit(2, solver=diffrax.Dopri8(), steps=12), END, rtol=1e-10)
    inner = {f"Tsit5, {n} steps": {"steps": n} for n in (3, 4, 8, 16)}
    inner |= {f"Euler, {n} steps": {"solver": diffrax.Euler(), "steps": n} for n in (16, 64)}
    for tolerance in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        controller = diffrax.PIDController(jnp.asarray(tolerance), jnp.asarray(tolerance / 100))
        inner[f"Tsit5, rtol {tolerance:.0e}"] = {"controller": controller, "steps": 48}
    rows, taken, rejected = [], [], []
    for name, options in inner.items():
        solution = _flow(objective, problem.limit(2, **options), rtol, max_steps=1024)
        steps = _steps(solution)
        taken, rejected = [*taken, steps[0]], [*rejected, steps[1]]
        rows.append((name, *steps, worst(solution.model_at(-1).measure.particles, truth)))
    return Table(
        f"Pollution: outer steps of Tsit5 at rtol = {rtol:.0e} against the inner solve",
        ("inner solve", "outer steps", "rejected", "error"),
        rows,
        "Particles of scale 1.3. The inner solve decides which flow is solved, but hardly how many outer steps that "
        "takes. An adaptive inner solve changes its number of steps along the flow, which makes Q jump: at a tolerance "
        "looser than the outer one that costs some steps, at the outer one none. Truth: SciPy, inner Dopri8, 12 steps.",
        [
            Check("most outer steps / fewest, over inner solves", max(taken) / min(taken), 1.0, 1.5),
            Check("most rejected steps, over inner solves", float(max(rejected)), 0.0, 25.0),
        ],
    )


def identities(problem: Regression, quick: bool) -> Table:
    """Energy balance and particle symmetries against the outer tolerance, both models."""
    objective, rows, checks = problem.objective, [], []
    models = {"limit": problem.limit(2)} if quick else {"finite": problem.finite(4), "limit": problem.limit(2)}
    rtols = (1e-4, 1e-6) if quick else (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
    for name, model in models.items():
        energies, symmetries = [], []
        for rtol in rtols:
            solution = _flow(objective, model, rtol)
            drop = solution.objective[0] - solution.objective[-1]
            energies.append(float(jnp.abs(drop - solution.dissipated[-1]) / drop))
            found = [symmetry(objective, model, solution, rtol) for symmetry in (_permuted, _split)]
            rows.append((name, rtol, energies[-1], *found))
            symmetries += found
        ratio = max(e / r for e, r in zip(energies, rtols, strict=True))
        checks += [
            Check(f"{name}: greatest energy error / rtol", ratio, 0.0, 10.0),
            Check(f"{name}: greatest symmetry error", max(symmetries), 0.0, 1e-10),
        ]
    return Table(
        f"Identities: Q(0) − Q(τ) = ∫ dissipation, and symmetry of particles, at τ = {END:g}",
        ("model", "rtol", "energy", "permuted", "split"),
        rows,
        "Energy: relative to the drop. Permuted, split: the worst particle's change when particles are permuted, or "
        "one is split in two of half its weight; exact but for rounding at any tolerance.",
        checks,
    )


def _permuted(objective, model, solution, rtol) -> float:
    order = jnp.roll(jnp.arange(model.measure.width), 1)
    shuffled = model.with_particles(jax.tree.map(lambda leaf: leaf[:, order], model.measure.particles))
    other = _flow(objective, shuffled, rtol).model_at(-1).measure.particles
    expected = jax.tree.map(lambda leaf: leaf[:, order], solution.model_at(-1).measure.particles)
    return worst(other, expected)


def _split(objective, model, solution, rtol) -> float:
    measure, width = model.measure, model.measure.width
    double = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:, :1]], axis=1), measure.particles)
    weights = jnp.full(width + 1, 1 / width).at[jnp.array([0, width])].set(0.5 / width)
    model = eqx.tree_at(lambda m: m.measure, model, type(measure)(double, weights))
    other = _flow(objective, model, rtol).model_at(-1).measure.particles
    expected = jax.tree.map(
        lambda leaf: jnp.concatenate([leaf, leaf[:, :1]], axis=1), solution.model_at(-1).measure.particles
    )
    return worst(other, expected)


def _flow(objective, model, rtol: float, **options):
    return wgf.flow(objective, model, [0.0, END], rtol=jnp.asarray(rtol), atol=jnp.asarray(rtol / 100), **options)


def _steps(solution) -> tuple[int, int]:
    return int(solution.stats["num_steps"]), int(solution.stats["num_rejected_steps"])
