"""What is measured on a card: precision, velocities, compile times, whole runs, divergences."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import rhs
from _gpu_session import Job, Session, reason
from _report import Check
from _sinkhorn_peers import plain_ott, wgf as our_divergence
from sinkhorn import clouds

import wgf
from wgf.experiments import LimitConfig, limit

# L, M, B, D, N+1, k
SIZES = [
    (8, 64, 64, 5, 9, 2),
    (16, 256, 64, 5, 9, 2),
    (16, 1024, 128, 5, 9, 2),
    (64, 4096, 256, 5, 9, 2),
    (8, 32, 16, 17, 65, 8),
    (8, 128, 64, 64, 64, 16),
]
PRECISION, VELOCITY, COMPILATION = "Errors in float32", "One velocity", "Compile times"
MAIN, PDE, DIVERGENCE = "The main job", "The PDE with many particles", "Sinkhorn divergences"
_SIZE = ("L, M, B", "D, N+1, k")
VARIANTS = ("wgf", "naive", "einsum", "remat", "torch.compile")
TITLES = {
    PRECISION: (
        (*_SIZE, "scale", "wgf", "naive, JAX's default"),
        "Largest error of a velocity's entry against float64, over the largest entry; geometric mean of three draws\n"
        "of particles, which are multiplied by the scale.",
    ),
    VELOCITY: (
        (*_SIZE, *(f"{name} ms" for name in VARIANTS)),
        "float32; all products at full precision. Medians of five calls in turn, compiled before. remat: einsum,\n"
        "whose arrays are computed again in the backward pass.",
    ),
    COMPILATION: ((*_SIZE, *(f"{name} s" for name in VARIANTS[:-1])), "wgf alone; the others side by side."),
    MAIN: (
        ("L", "M", "R finite", "R PDE", "risk gap", "output gap", "seconds of the whole job"),
        "R: the risk, at the last τ. Seconds: compilation and all, once for all sizes.",
    ),
    PDE: (
        ("particles per stage", "velocity ms", "τ", "steps", "first flow s", "second flow s"),
        "Eight stages in depth, 32 prompts of 9 tokens. The first flow compiles.",
    ),
    DIVERGENCE: (
        ("n", "dim", "wgf ms", "OTT ms", "difference"),
        "The whole divergence at a marginal error of 1e-3, float32. Difference: of the two values, relative.",
    ),
}


def jobs(quick: bool) -> dict[str, list[Job]]:
    """The jobs of each part, with the seconds that they need on a card."""
    sizes, points = (rhs.QUICK[:1], (64,)) if quick else (SIZES, (1024, 4096, 16384))
    precise = sizes if quick else [SIZES[0], SIZES[4]]
    repeats, particles, needed = (1, 16, 0) if quick else (5, 65536, 1)
    return {
        "precision": [Job(f"precision, {s}", 20 * needed, functools.partial(precision, s)) for s in precise],
        "velocity": [Job(f"velocity, {s}", 25 * needed, functools.partial(velocity, s, repeats)) for s in sizes],
        "limit": [Job("the main job", 120 * needed, functools.partial(main_job, quick))],
        "pde": [Job(f"PDE, {particles} particles per stage", 60 * needed, functools.partial(pde, particles))],
        "sinkhorn": [
            Job(f"divergence, n = {n}", 15 * needed, functools.partial(divergence, n, repeats)) for n in points
        ],
    }


def in_words(size: tuple[int, ...]) -> tuple[str, str]:
    """The two cells of a size."""
    return ", ".join(map(str, size[:3])), ", ".join(map(str, size[3:]))


def precision(size: tuple[int, ...], session: Session) -> None:
    """Errors of a velocity at two scales of the particles."""
    velocities = {name: jax.jit(rhs.VELOCITIES[name]) for name in ("wgf", "naive")}
    for scale in (1.0, 3.0):
        logs = [np.log([*rhs.one_error(velocities, size, scale, seed).values()]) for seed in range(3)]
        ours, naive = np.exp(np.mean(logs, axis=0)).tolist()
        session.line(PRECISION, *in_words(size), scale, ours, naive)
        session.claim(PRECISION, Check(f"float32 error at {size}, scale {scale:g}", ours, 0, 1e-5))


def full(velocity: Callable) -> Callable:
    """A velocity whose products are at full precision."""

    def computed(objective, model):
        with jax.default_matmul_precision("highest"):
            return velocity(objective, model)

    return computed


def remade_attention(encoder, heads, weights, tokens):
    """The einsums of `rhs`, whose arrays are not kept for the backward pass."""
    return jax.checkpoint(functools.partial(rhs.einsum_attention, encoder))(heads, weights, tokens)


def remade_perceptron(encoder, neurons, weights, tokens):
    """The same for neurons."""
    return jax.checkpoint(functools.partial(rhs.einsum_perceptron, encoder))(neurons, weights, tokens)


PEERS = {
    "naive": full(rhs.naive_velocity),
    "einsum": full(rhs.VELOCITIES["einsum"]),
    "remat": full(functools.partial(rhs.jax_velocity, remade_attention, remade_perceptron)),
}


def velocity(size: tuple[int, ...], repeats: int, session: Session) -> None:
    """Times of one velocity and of its compilation, of `wgf` and of peers whose numbers agree."""
    jax.clear_caches()
    problem = rhs.problem(size)
    programs, seconds = {}, {}
    programs["wgf"], seconds["wgf"] = compiled(wgf.velocity, problem)
    with ThreadPoolExecutor(len(PEERS)) as pool:
        pending = {name: pool.submit(compiled, peer, problem) for name, peer in PEERS.items()}
    for name, each in pending.items():
        with leaving_out(session, f"{name}, {size}"):
            programs[name], seconds[name] = each.result()
    session.line(COMPILATION, *in_words(size), *(seconds.get(name) for name in VARIANTS[:-1]))
    programs |= by_torch(session, size, problem)
    results = {}
    for name, program in dict(programs).items():
        with leaving_out(session, f"{name}, {size}"):
            results[name] = [np.asarray(to_host(leaf)) for leaf in jax.tree.leaves(program())]
    programs = {name: program for name, program in programs.items() if name in results}
    medians = {name: float(np.median(found)) for name, found in rhs.timings(programs, repeats).items()}
    session.line(VELOCITY, *in_words(size), *(1e3 * medians[n] if n in medians else None for n in VARIANTS))
    differences = [rhs.difference(found, results["wgf"]) for found in results.values()]
    session.claim(VELOCITY, Check(f"difference of the variants at {size}", max(differences), 0, 1e-4))


def compiled(function: Callable, problem: tuple) -> tuple[Callable, float]:
    """A program without arguments, and the seconds of its compilation."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*problem).compile()
    return functools.partial(program, *problem), time.perf_counter() - start


@contextlib.contextmanager
def leaving_out(session: Session, name: str) -> Iterator[None]:
    """A context in which an error is caught, and names what is left out."""
    try:
        yield
    except Exception as error:  # whatever a compiler or a card may raise
        session.leave_out(name, reason(error))


def by_torch(session: Session, size: tuple[int, ...], problem: tuple) -> dict[str, Callable]:
    """PyTorch's compiled velocity on the card; nothing, and a line that says so, where there is no such PyTorch."""
    name = f"torch.compile, {size}"
    if rhs.torch is None or not rhs.torch.cuda.is_available():
        session.leave_out(name, "PyTorch with CUDA is not installed")
        return {}
    found = rhs.torch_velocities(*problem, device="cuda")
    if "compiled" not in found:
        session.leave_out(name, "does not run")
    return {"torch.compile": found["compiled"]} if "compiled" in found else {}


def to_host(leaf):
    """An array of JAX as it is, one of PyTorch on the CPU."""
    return leaf.cpu() if hasattr(leaf, "cpu") else leaf


def main_job(quick: bool, session: Session) -> None:
    """`wgf limit`: the seconds of the whole, and its numbers at the last τ."""
    tiny = LimitConfig(
        batch=4, examples=3, sizes=((2, 4),), seeds=2, tracers=8, width=16, replicates=2, taus=(0.0, 1.0)
    )
    start = time.perf_counter()
    result = limit.run(tiny if quick else LimitConfig(), show_progress=False)
    found = {name: np.asarray(value) for name, value in result.arrays().items()}
    seconds = time.perf_counter() - start
    for place, (depth, width) in enumerate(found["sizes"].tolist()):
        gaps = (float(found[f"gap_{name}_mean"][place, -1]) for name in ("risk", "output"))
        risks = float(found["finite_risk"][place, :, -1].mean()), float(found["limit_risk"][-1])
        session.line(MAIN, depth, width, *risks, *gaps, seconds)
        session.claim(MAIN, Check(f"the risk is finite at L = {depth}, M = {width}", sum(risks), 0, 1e3))


def pde(width: int, session: Session) -> None:
    """One velocity of the PDE's particles, and a flow to τ = 1, first and once more."""
    prompts = wgf.prompts.linear_regression(jax.random.key(0), batch=32, examples=8, dim=2)
    encoder = wgf.encoders.Average(wgf.encoders.SoftmaxAttention(5, key_dim=2), wgf.encoders.Perceptron(5, jnp.tanh))
    measure = wgf.measures.Gaussian(encoder, 0.7, wgf.measures.SignPairs(wgf.measures.Sobol()))
    model = wgf.AveragedODE(encoder, measure.staged(width, jax.random.key(1), joint=True))
    objective = wgf.Objective(prompts, 1e-3)
    program, _ = compiled(wgf.velocity, (objective, model))
    velocity = float(np.median(rhs.timings({"wgf": program}, 3)["wgf"]))
    seconds, steps = [], 0
    for _ in range(2):
        start = time.perf_counter()
        solution = jax.block_until_ready(wgf.flow(objective, model, [0.0, 1.0], rtol=1e-3))
        seconds.append(time.perf_counter() - start)
        steps = int(solution.stats["num_steps"])
        assert bool(solution.objective[-1] < solution.objective[0]), "Q falls along its gradient flow"
    session.line(PDE, width, 1e3 * velocity, 1.0, steps, *seconds)


def divergence(n: int, repeats: int, session: Session) -> None:
    """One divergence of two clouds, by `wgf` and by OTT's own solver and geometry."""
    for dim in (2, 55):
        problem = clouds(n, dim, "float32", 1)
        calls = {"wgf": functools.partial(our_divergence, *problem, 1e-3)}
        calls["OTT"] = functools.partial(plain_ott, *problem, 1e-3)
        values = {name: float(call()[0][-1]) for name, call in calls.items()}
        medians = {name: float(np.median(found)) for name, found in rhs.timings(calls, repeats).items()}
        off = abs(values["OTT"] / values["wgf"] - 1)
        session.line(DIVERGENCE, n, dim, 1e3 * medians["wgf"], 1e3 * medians["OTT"], off)
        session.claim(DIVERGENCE, Check(f"wgf and OTT agree, n = {n}, dim {dim}", off, 0, 0.02))
