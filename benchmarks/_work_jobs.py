"""The problems and jobs of the work-precision benchmark: who computes the limit's outputs, how, and at what cost."""

from collections.abc import Callable
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import wgf
from wgf.encoders import AbstractEncoder, Average, Perceptron, SoftmaxAttention
from wgf.measures import EqualEighths, Gaussian, Independent, SignPairs, Sobol, Staged, ThreeEighths, Whitened
from wgf.measures._staged import stage_nodes

SYMMETRIC = SignPairs(Sobol())
WHITENED = Whitened(SYMMETRIC)
SAVES = 2


class Problem(NamedTuple):
    """A trained limit whose outputs at τ are asked for, by so many steps in τ."""

    objective: wgf.Objective
    encoder: AbstractEncoder
    scale: float
    tau: float
    steps: int

    def law(self, sampling) -> Gaussian:
        """The initial law, sampled so."""
        return Gaussian(self.encoder, self.scale, sampling)

    def label_rms(self) -> float:
        """What errors are relative to."""
        return float(self.objective.prompts.label_rms())


class Outcome(NamedTuple):
    """The outputs that a job found `[B]`, and the evaluations of heads that it took."""

    outputs: np.ndarray
    evaluations: int


class Job(NamedTuple):
    """A variant at one size."""

    variant: str
    size: str
    run: Callable[[Problem, jax.Array], Outcome]


def problems() -> dict[str, Problem]:
    """In-context regression by whole Transformers, by small attention alone, and on a real table.

    The methods' sizes and settings were chosen on the first two, but for the times at which the cubature preserves
    means: those were chosen on all three.
    """
    large = wgf.prompts.linear_regression(jax.random.key(0), batch=16, examples=8, dim=2)
    small = wgf.prompts.linear_regression(jax.random.key(0), batch=16, examples=8, dim=1, positions=0)
    real = wgf.prompts.diabetes(jax.random.key(0), batch=16, examples=10, dim=3)
    both = Average(SoftmaxAttention(5, key_dim=2), Perceptron(5, jnp.tanh, use_bias=False))
    other = Average(SoftmaxAttention(6, key_dim=3), Perceptron(6, jax.nn.gelu))
    return {
        "transformer, P = 55": Problem(wgf.Objective(large, 1e-3), both, 0.7, 15.0, steps=6),
        "attention, P = 8": Problem(wgf.Objective(small, 1e-3), SoftmaxAttention(2, key_dim=1), 0.7, 8.0, steps=10),
        "diabetes, P = 85": Problem(wgf.Objective(real, 1e-2), other, 0.5, 6.0, steps=6),
    }


def solve(
    problem: Problem,
    model,
    steps: int,
    saves: int = SAVES,
    solver=ThreeEighths(),  # noqa: B008 (an immutable module)
) -> wgf.flows.FlowSolution:
    """The flow of a model at constant steps in τ, by default by Kutta's 3/8 rule."""
    return wgf.flow(
        problem.objective,
        model,
        jnp.linspace(0.0, problem.tau, saves),
        solver=solver,
        controller=diffrax.ConstantStepSize(),
        dt0=problem.tau / steps,
    )


def velocities(steps: int, saves: int = SAVES, stages: int = 4) -> int:
    """How many velocities a flow takes: the stages of each step, one more of the first, and a survey at each save."""
    return stages * steps + 1 + saves


def outcome(problem: Problem, model) -> Outcome:
    """The outputs of a model's flow at τ; a head evaluated at each layer or stage for each velocity."""
    outputs = solve(problem, model, problem.steps).outputs[-1]
    return Outcome(np.asarray(outputs, np.float64), velocities(problem.steps) * model.measure.weights.size)


def finite(variant: str, sampling, depth: int, width: int) -> Job:
    """A finite Transformer."""

    def run(problem: Problem, key) -> Outcome:
        return outcome(problem, wgf.Transformer(problem.encoder, problem.law(sampling).layered(depth, width, key)))

    return Job(variant, f"{depth} x {width}", run)


def staged(variant: str, sampling, width: int, solver=EqualEighths(), *, joint: bool = True) -> Job:  # noqa: B008
    """The limit with a sample at each stage time of a method."""

    def run(problem: Problem, key) -> Outcome:
        measure = problem.law(sampling).staged(width, key, solver=solver, joint=joint)
        return outcome(problem, wgf.AveragedODE(problem.encoder, measure))

    return Job(variant, f"{len(stage_nodes(solver, 1)[0])} x {width}", run)


def same(problem: Problem, sampling, width: int, key, solver=ThreeEighths(), steps: int = 1) -> Staged:  # noqa: B008
    """One sample at all stage times of so many steps in depth."""
    particles = problem.law(sampling).sample(key, width)
    nodes = len(stage_nodes(solver, steps)[0])
    everywhere = jax.tree.map(lambda x: jnp.broadcast_to(x, (nodes, *x.shape)), particles)
    return Staged(everywhere, solver=solver, steps=steps)


def shared(variant: str, sampling, width: int) -> Job:
    """The limit with one sample shared by the four stage times."""

    def run(problem: Problem, key) -> Outcome:
        return outcome(problem, wgf.AveragedODE(problem.encoder, same(problem, sampling, width, key)))

    return Job(variant, f"{width}, 4 stages", run)


def cubature(base: int, width: int) -> Job:
    """A few particles whose weights make them stand for a far larger sample, along a pilot of 16 a node and five τ."""

    def run(problem: Problem, key) -> Outcome:
        pilot_key, base_key = jax.random.split(key)
        start, large = (problem.law(SYMMETRIC).staged(m, k, joint=True) for m, k in ((16, pilot_key), (base, base_key)))
        pilot = solve(problem, wgf.AveragedODE(problem.encoder, start), steps=4, saves=5, solver=diffrax.Heun())
        measure = wgf.analysis.cubature(problem.objective, pilot, large, width, tied=2)
        found = outcome(problem, wgf.AveragedODE(problem.encoder, measure))
        # The pilot's flow and its adjoint, forward and back, at each saved τ.
        spent = (velocities(4, 5, stages=2) + 2 * 5) * start.weights.size
        # Each tracer: a gradient for each of four steps, the first for a particle and its reflection; values at two τ.
        tracers = 6 * large.weights.size - large.weights.size // 2
        return found._replace(evaluations=found.evaluations + spent + tracers)

    return Job("PDE staged, cubature", f"8 x {width} of 8 x {base}", run)


def jobs(name: str, quick: bool) -> list[Job]:
    """The jobs of a problem: for each variant a ladder of sizes by rising cost."""
    if quick:
        return [
            *(finite("finite, i.i.d.", Independent(), 4, m) for m in (8, 32)),
            staged("PDE staged, whitened", WHITENED, 128),
        ]
    return {"transformer, P = 55": _large, "attention, P = 8": _small, "diabetes, P = 85": _third}[name]()


def _large() -> list[Job]:
    """Ladders for particles of many dimensions."""
    sizes = [(16, 64), (32, 128), (64, 256), (128, 512), (512, 1024)]
    return [
        *(finite("finite, i.i.d.", Independent(), *size) for size in sizes),
        *(finite("finite, symmetric Sobol", SYMMETRIC, *size) for size in sizes[:-2]),
        *(shared("PDE shared, symmetric Sobol", SYMMETRIC, m) for m in (256, 1024)),
        *(staged("PDE 3/8 rule, symmetric Sobol", SYMMETRIC, m, ThreeEighths()) for m in (256, 1024, 4096)),
        *_limits((128, 512, 2048), [(512, 128), (1024, 128), (2048, 256), (8192, 512), (16384, 768)]),
    ]


def _third() -> list[Job]:
    """The ladders that the third problem judges."""
    sizes = [(16, 64), (32, 128), (64, 256), (128, 512), (512, 1024)]
    return [
        *(finite("finite, i.i.d.", Independent(), *size) for size in sizes),
        *(staged("PDE staged, symmetric Sobol", SYMMETRIC, m) for m in (128, 512, 2048, 8192)),
        *(cubature(*size) for size in [(512, 128), (1024, 128), (2048, 256), (8192, 512), (32768, 2048)]),
    ]


def _small() -> list[Job]:
    """Ladders for particles of 8 dimensions."""
    sizes = [(16, 64), (32, 128), (64, 256), (128, 512), (512, 2048)]
    return [
        *(finite("finite, i.i.d.", Independent(), *size) for size in sizes),
        *(finite("finite, symmetric Sobol", SYMMETRIC, *size) for size in sizes[:-2]),
        *(shared("PDE shared, symmetric Sobol", SYMMETRIC, m) for m in (64, 256, 1024)),
        *(staged("PDE 3/8 rule, symmetric Sobol", SYMMETRIC, m, ThreeEighths()) for m in (64, 256, 1024, 4096)),
        *_limits((32, 128, 512, 2048), [(1024, 64), (4096, 128), (8192, 256), (16384, 512)]),
    ]


def _limits(widths: tuple[int, ...], cubatures: list[tuple[int, int]]) -> list[Job]:
    """The limit with samples at eight stage times: ladders of widths; of bases and widths kept."""
    return [
        *(staged("PDE staged, i.i.d.", Independent(), m) for m in widths),
        *(staged("PDE staged, symmetric Sobol", SYMMETRIC, m) for m in widths),
        *(staged("PDE staged, whitened", WHITENED, m) for m in widths),
        *(cubature(*size) for size in cubatures),
    ]
