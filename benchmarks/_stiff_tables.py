"""Long times and stiff flows: which outer solver pays."""

import dataclasses
import time
from collections.abc import Iterator

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from _problems import Regression, flow_by_scipy, worst
from _report import Check, Table

import wgf
from wgf.objective import AbstractLoss

# Dense Jacobians of many particles are out of reach: Newton with products of the Jacobian alone. (KenCarp solvers are
# for split fields, which a flow is not.)
GMRES = lx.GMRES(rtol=1e-3, atol=1e-6, max_steps=30, restart=30)
NEWTON = optx.Newton(rtol=1e-4, atol=1e-6, linear_solver=GMRES)
SOLVERS = {
    "Tsit5": (diffrax.Tsit5(), (1e-3, 1e-4, 1e-5)),
    "RKC": (wgf.flows.RKC(), (1e-3, 1e-4, 1e-5)),
    "RosenbrockW": (wgf.flows.RosenbrockW(), (1e-3, 1e-4, 1e-5)),
    "Heun": (diffrax.Heun(), (1e-3,)),
    "Bosh3": (diffrax.Bosh3(), (1e-3, 1e-4)),
    "Dopri8": (diffrax.Dopri8(), (1e-3,)),
    "Kvaerno3, GMRES": (diffrax.Kvaerno3(root_finder=NEWTON), (1e-3,)),
    "Kvaerno5, GMRES": (diffrax.Kvaerno5(root_finder=NEWTON), (1e-3,)),
    "Euler implicit, GMRES": (diffrax.ImplicitEuler(root_finder=NEWTON), (1e-3,)),
}
IMPLICIT = ("long",)  # they are slow: left out of the other cases


@dataclasses.dataclass(frozen=True)
class Case:
    """A name, the weight decay, the scale of the prompts, the end of the flow."""

    name: str
    decay: float
    scale: float
    end: float


CASES = (
    Case("short", 1e-3, 1.0, 10.0),
    Case("long", 1e-4, 1.0, 1e3),
    Case("very long", 1e-4, 1.0, 1e4),
    Case("steep: prompts x4", 1e-4, 4.0, 1e2),
    Case("strong decay", 1e-1, 1.0, 1e3),
)

CALLS: list[int] = []


class CountedLoss(AbstractLoss):
    """The default loss, counting its evaluations on the host."""

    base: wgf.objective.HalfSquaredError = wgf.objective.HalfSquaredError()

    def __call__(self, outputs, labels):
        """Score, and count."""
        jax.debug.callback(lambda: CALLS.append(1))
        return self.base(outputs, labels)

    def check(self, outputs, labels):
        """Take what the default takes."""
        self.base.check(outputs, labels)


def stiff_tables(quick: bool) -> Iterator[Table]:
    """All tables of this file."""
    yield solvers(quick)


def solvers(quick: bool) -> Table:
    """Solver × problem: steps, rejected steps, velocities, error, seconds."""
    rows = []
    chosen = {name: SOLVERS[name] for name in (("Tsit5", "RKC", "RosenbrockW") if quick else SOLVERS)}
    for case in (CASES[3],) if quick else CASES:
        objective, model = problem(case, quick)
        truth = flow_by_scipy(objective, model, case.end, rtol=1e-8)
        for name, (solver, rtols) in chosen.items():
            if "GMRES" in name and case.name not in IMPLICIT:
                continue
            for rtol in rtols[:2] if quick else rtols:
                rows.append(
                    (case.name, case.end, name, rtol, *measure(objective, model, case.end, solver, rtol, truth))
                )
    return Table(
        "Solvers: the flow of a Transformer (L = 4, M = 8) over short, long and stiff runs",
        ("case", "τ", "solver", "rtol", "steps", "rejected", "velocities", "error", "seconds"),
        rows,
        "Error: of the worst particle, against SciPy's DOP853 at 1e-8 on plain automatic differentiation. Velocities: "
        "evaluations of Q's gradient; products with its Jacobian, which implicit solvers add, are not counted but take "
        "time; so are RosenbrockW's Jacobian of the outputs and its factorisation, one each a step. None where the "
        "solve failed.",
        list(checks(rows)),
    )


def problem(case: Case, quick: bool):
    """The objective and the model of a case."""
    base = Regression(batch=4 if quick else 8, examples=4, width=4 if quick else 8, decay=case.decay)
    prompts = base.objective.prompts
    prompts = eqx.tree_at(lambda p: p.tokens, prompts, prompts.tokens * case.scale)
    prompts = eqx.tree_at(lambda p: p.labels, prompts, prompts.labels * case.scale)
    return wgf.Objective(prompts, base.decay), base.finite(4)


def measure(objective, model, end: float, solver, rtol: float, truth) -> tuple:
    """One solve: steps, rejected steps, velocities, error and seconds, compilation left out."""
    counted = wgf.Objective(objective.prompts, objective.weight_decay, loss=CountedLoss())
    options = {"rtol": jnp.asarray(rtol), "atol": jnp.asarray(rtol / 100), "max_steps": 16384, "throw": False}

    def run(end):
        return jax.block_until_ready(wgf.flow(counted, model, jnp.array([0.0, end]), solver=solver, **options))

    run(1e-3)
    jax.effects_barrier()
    CALLS.clear()
    start = time.perf_counter()
    solution = run(end)
    seconds = time.perf_counter() - start
    jax.effects_barrier()
    steps = int(solution.stats["num_steps"]), int(solution.stats["num_rejected_steps"]), len(CALLS)
    if not bool(solution.reached[-1]):
        return (*steps, None, seconds)
    return (*steps, worst(solution.model_at(-1).measure.particles, truth), seconds)


def checks(rows) -> Iterator[Check]:
    """What the choice of solvers rests on."""
    spent = {(row[0], row[2], row[3]): row[6] for row in rows}
    errors = {(row[0], row[2], row[3]): row[7] for row in rows}
    for case in dict.fromkeys(row[0] for row in rows):
        gain = spent[case, "Tsit5", 1e-3] / spent[case, "RKC", 1e-3]
        low = {"short": 0.2, "strong decay": 1.0}.get(case, 2.0)
        yield Check(f"{case}: velocities of Tsit5 / those of RKC, rtol 1e-3", gain, low, 100.0)
        gain = spent[case, "RKC", 1e-3] / spent[case, "RosenbrockW", 1e-3]
        yield Check(f"{case}: velocities of RKC / those of RosenbrockW, rtol 1e-3", gain, 0.8, 100.0)
        for name in ("RKC", "RosenbrockW"):
            yield Check(f"{case}: {name}'s error / rtol, rtol 1e-3", errors[case, name, 1e-3] / 1e-3, 0.0, 10.0)
