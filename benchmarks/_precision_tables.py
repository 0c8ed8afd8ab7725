"""float32 against float64: the objective, the velocity, the whole flow."""

from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
from _problems import TIGHT, Regression, worst
from _report import Check, Table

import wgf

END = 8.0


def precision_tables(quick: bool) -> Iterator[Table]:
    """All tables of this file."""
    problem = Regression(batch=4, examples=4, width=4) if quick else Regression(width=64)
    models = {"limit": problem.limit(2)} if quick else {"finite": problem.finite(16), "limit": problem.limit(3)}
    yield once(problem, models, quick)
    yield whole(problem, models, quick)


def single(tree):
    """Every float64 array as float32: the dtype follows the input."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, tree)


def once(problem: Regression, models: dict, quick: bool) -> Table:
    """One evaluation of Q and of the velocity, at particles scaled up."""
    objective, rows, checks = problem.objective, [], []
    value, velocity = eqx.filter_jit(lambda objective, model: objective(model)), eqx.filter_jit(wgf.velocity)
    for name, model in models.items():
        for scale in (1, 2) if quick else (1, 2, 3):
            large = model.with_particles(jax.tree.map(lambda leaf, scale=scale: scale * leaf, model.measure.particles))
            exact, field = value(objective, large), velocity(objective, large)
            q = float(jnp.abs(value(*single((objective, large))) / exact - 1))
            v = worst(velocity(*single((objective, large))), field) / worst(jax.tree.map(jnp.zeros_like, field), field)
            rows.append((name, scale, q, v))
            checks.append(Check(f"{name}, particles x{scale}: velocity in float32", v, 0.0, 1e-4))
    return Table(
        "float32: relative errors of one evaluation of Q and of the velocity",
        ("model", "scale", "Q", "velocity"),
        rows,
        "Against float64. Velocity: the worst particle's error over the fastest particle's speed. Scale: of "
        "the particles.",
        checks,
    )


def whole(problem: Regression, models: dict, quick: bool) -> Table:
    """The flow in both precisions against rtol."""
    objective, rows, checks = problem.objective, [], []
    for name, model in models.items():
        exact = wgf.flow(objective, model, [0.0, END], **TIGHT).model_at(-1)
        for rtol in (1e-4,) if quick else (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8):
            row = [name, rtol]
            for cast in (lambda tree: tree, single):
                o, m = cast((objective, model))
                options = {"rtol": jnp.asarray(rtol), "atol": jnp.asarray(rtol / 100)}
                solution = wgf.flow(o, m, [0.0, END], **options)
                error = worst(solution.model_at(-1).measure.particles, exact.measure.particles)
                row += [int(solution.stats["num_steps"]), error]
            rows.append(tuple(row))
            if rtol >= 1e-6:
                checks.append(Check(f"{name}, rtol {rtol:.0e}: float32 error / rtol", row[-1] / rtol, 0.0, 10.0))
    return Table(
        f"float32: the worst particle's error at τ = {END:g} of the flow against rtol (atol = rtol/100)",
        ("model", "rtol", "steps, float64", "error, float64", "steps, float32", "error, float32"),
        rows,
        "Against float64 at rtol 1e-10. Below rtol 1e-6 single precision buys nothing more.",
        checks,
    )
