"""The main job: finite Transformers of growing size against the Wasserstein-flow PDE."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

from .. import plot
from .._checks import at_least
from ..analysis import Gap, Replicates, flow_each, gap, pool, student_quantile
from ..encoders import Average, Perceptron, SoftmaxAttention
from ..flows import FlowSolution, flow
from ..measures import (
    AbstractMeasure,
    Gaussian,
    Independent,
    SignPairs,
    Sobol,
    coordinate_names,
    coordinates,
)
from ..models import AveragedODE, Transformer, pad, unpad
from ..objective import Objective
from ..sharding import gather, parse_mesh, shard, start_processes
from ._data import load_prompts
from ._progress import Stages
from ._seed import check_seed
from ._sizes import Size, together

# Compiling a flow takes about as long as it takes with so many particles on one prompt to run.
_COMPILING = 2**18


@dataclass(frozen=True)
class LimitConfig:
    """Train finite Transformers of growing width and depth, solve their mean-field PDE once, measure the distance."""

    data: str = "synthetic"
    """Where prompts come from: 'synthetic' (in-context linear regression), 'diabetes' (scikit-learn's bundled
    table), or
    the path of a CSV file of numbers with a header line."""
    target: str | None = None
    """The column to predict, where the data is a CSV file."""
    batch: int = 32
    """The number of prompts B."""
    examples: int = 8
    """The number of labelled examples N in each prompt, before the query."""
    dim: int = 2
    """The number of input features of each example."""
    sizes: tuple[Size, ...] = ((4, 16), (8, 32), (16, 64), (32, 128))
    """The finite models, as pairs of depth L and width M: 4 16 8 32 means (4, 16) and (8, 32)."""
    width: int = 4096
    """Particles at each stage time of the PDE's solve in depth, all replicates together."""
    replicates: int = 8
    """The independently randomised parts that the PDE's particles are made of; each is also solved alone, which tells
    the PDE's own sampling error."""
    sampling: Literal["pairs", "sobol", "independent"] = "pairs"
    """How the PDE's particles are placed: sign-symmetric pairs of Sobol points, Sobol points, or independent draws.
    Those of the finite models are independent, as the theorems have them."""
    steps: int = 1
    """Steps in depth of the PDE's model, of eight stages each; every stage time has a sample of its own."""
    taus: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 20.0)
    """The training times at which everything is saved and compared."""
    key_dim: int = 2
    """The dimension k of keys and queries."""
    scale: float = 0.7
    """The standard deviation of the initial law of the particles."""
    weight_decay: float = 1e-3
    """The weight decay lambda."""
    rtol: float = 1e-3
    """The relative tolerance of the flow in training time, for the worst particle."""
    seed: int = 0
    """The seed of every random draw."""
    mesh: str | None = None
    """Spread prompts and particles over all devices, e.g. prompts=4,particles=2; by default one device does all."""
    distributed: str | None = None
    """Run in many processes, started one each on the machines of a cluster: 'auto' (SLURM, TPU pods, Open MPI), or
    ADDRESS:PORT,PROCESSES,ID with the first process's address. Needs a mesh of the devices of all processes."""
    quick: bool = False
    """A size that takes seconds: fewer prompts, particles, layers and times, unless these are given."""
    out: Path | None = None
    """The results folder; by default a new one under results/."""

    @classmethod
    def quick_default(cls) -> "LimitConfig":
        """The defaults of `--quick`."""
        return cls(
            batch=8,
            examples=4,
            sizes=((2, 8), (4, 16)),
            width=64,
            replicates=4,
            taus=(0.0, 1.0, 2.0, 4.0),
            quick=True,
        )


@dataclass(frozen=True)
class LimitResult:
    """The flows and gaps of one run of the main job."""

    config: LimitConfig
    objective: Objective
    limit: Replicates
    finite: tuple[FlowSolution, ...]
    gaps: tuple[Gap, ...]

    def table(self) -> str:
        """The table that the command prints: a line for each size and training time, `~` after what noise may be."""
        arrays = self.arrays()
        head = f"{'L':>2} {'M':>4} {'tau':>4} " + " ".join(_heading(*column) for column in _COLUMNS)
        lines = [head, "-" * len(head)]
        for number, (depth, width) in enumerate(self.config.sizes):
            for i, tau in enumerate(np.asarray(arrays["taus"])):
                cells = " ".join(_cell(arrays, form, name, number, i) for _, form, name in _COLUMNS)
                trust = "" if arrays["sinkhorn_converged"][number, i] else "  Sinkhorn not converged"
                lines.append(f"{depth:2d} {width:4d} {tau:4.4g} {cells}{trust}")
        return "\n".join([*lines, "-" * len(head), *self._notes()])

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`.

        Axes `[size, tau, ...]` for finite models and gaps, `[tau, ...]` for the limit, `[replicate, tau, ...]` for its
        replicates.
        """
        prompts, pooled = self.objective.prompts, self.limit.pooled
        fields = ("objective", "risk", "dissipation", "outputs")
        gaps = ("objective", "risk", "output", "coupling")
        sinkhorn = ("value", "floor", "excess", "epsilon", "converged")
        estimates = {name: getattr(self.limit, name) for name in ("objective", "risk", "outputs")}
        depths, particles, *finite = _final(pooled.models.measure, *(s.models.measure for s in self.finite))
        return {
            "taus": pooled.taus,
            "sizes": np.array(self.config.sizes),
            "tokens": prompts.tokens,
            "labels": prompts.labels,
            **{f"limit_{name}": getattr(pooled, name) for name in fields},
            **{f"limit_{name}_error": estimate.standard_error for name, estimate in estimates.items()},
            **{f"limit_{name}_bias": estimate.bias for name, estimate in estimates.items()},
            **{f"replicates_{name}": getattr(self.limit.members, name) for name in fields},
            **{f"finite_{name}": np.stack([getattr(s, name) for s in self.finite]) for name in fields},
            **{f"gap_{name}": np.stack([getattr(g, name) for g in self.gaps]) for name in gaps},
            **{f"noise_{name}": np.stack([getattr(g.noise, name) for g in self.gaps]) for name in gaps},
            **{f"resolved_{name}": np.stack([getattr(g.resolved, name) for g in self.gaps]) for name in gaps},
            **{f"sinkhorn_{name}": np.stack([getattr(g.sinkhorn, name) for g in self.gaps]) for name in sinkhorn},
            "coordinate_names": np.array(coordinate_names(pooled.models.encoder)),
            "limit_depths": depths,
            "limit_particles": particles,
            **{
                f"finite_particles_{depth}x{width}": cloud
                for (depth, width), cloud in zip(self.config.sizes, finite, strict=True)
            },
        }

    def figure(self) -> Figure:
        """Risk curves, gaps against τ beside the PDE's own error, and the largest model's particles over the PDE's."""
        taus = np.asarray(self.limit.pooled.taus)
        names = [f"L = {depth}, M = {width}" for depth, width in self.config.sizes]
        figure = Figure(figsize=(12.5, 7.2), layout="constrained")
        grid = figure.subplots(2, 3)
        for axes in grid[1, 1:]:
            axes.sharex(grid[1, 0])
            axes.sharey(grid[1, 0])
        risk = self.limit.risk
        risks = {name: solution.risk for name, solution in zip(names, self.finite, strict=True)}
        plot.risk_curves(grid[0, 0], taus, risks, risk.value, risk.interval())
        for axes, (kind, label) in zip(
            grid[0, 1:], (("output", "output gap (RMS)"), ("coupling", "coupling distance")), strict=True
        ):
            gaps = {name: getattr(gap_, kind) for name, gap_ in zip(names, self.gaps, strict=True)}
            resolved = {name: getattr(gap_.resolved, kind) for name, gap_ in zip(names, self.gaps, strict=True)}
            plot.gap_curves(axes, taus, gaps, label, getattr(self.gaps[0].noise, kind), resolved)
        self._clouds(grid[1])
        return figure

    def _clouds(self, axes) -> None:
        largest, limit = self.finite[-1].models, self.limit.pooled.models
        # The two coordinates whose law moved most under the limit's flow.
        x, y = np.sort(np.argsort(np.asarray(_moved(limit.measure)))[-2:])
        labels = coordinate_names(largest.encoder)
        depths = (0.0, 0.5, 0.999)
        for axis, depth, clouds in zip(axes, depths, _clouds(limit.measure, largest.measure, depths), strict=True):
            limits, finite = (np.asarray(cloud)[:, [x, y]] for cloud in clouds)
            plot.clouds(axis, limits, finite, (labels[x], labels[y]), f"particles at t = {depth:.2g}")

    def _notes(self) -> list[str]:
        rms = float(self.objective.prompts.label_rms())
        config, count = self.config, self.config.replicates
        epsilon, factor = float(np.asarray(self.gaps[0].sinkhorn.epsilon)[0]), student_quantile(count)
        depths = self.limit.pooled.models.measure.weights.shape[1]
        return [
            f"data {config.data}: B = {config.batch} prompts of N = {config.examples} examples, "
            f"label RMS {rms:.3f}; lambda = {config.weight_decay:g}; rho_0 = N(0, {config.scale:g}^2)",
            f"PDE: {depths} stage times in depth x {config.width} particles ({config.sampling}), "
            f"{int(self.limit.pooled.stats['num_steps'])} steps in tau; error from {count} replicates x "
            f"{config.width // count} particles, solved apart",
            "gaps are finite minus PDE; output: RMS over prompts; Sinkhorn and coupling: squared distances;",
            "error: what the PDE's own sampling puts into the number to its left (one root mean square; coupling: its "
            "square);",
            f"~: the number is within {factor:.2f} errors (95 % of Student's t; coupling: {factor**2:.2f}) and may be "
            "the PDE's own noise",
            "floor: two independent samples of the PDE's law, of the sizes compared; excess: Sinkhorn minus floor; "
            f"epsilon = {epsilon:.3g}",
        ]


# Heading, format and array of each column after the size and time. Gaps are marked where they are not resolved.
_COLUMNS = (
    ("Q finite", "8.6f", "finite_objective"),
    ("Q PDE", "8.6f", "limit_objective"),
    ("error", "7.1e", "noise_objective"),
    ("risk gap", "+9.2e", "gap_risk"),
    ("error", "7.1e", "noise_risk"),
    ("output", "8.2e", "gap_output"),
    ("error", "7.1e", "noise_output"),
    ("Sinkhorn", "8.4f", "sinkhorn_value"),
    ("floor", "8.4f", "sinkhorn_floor"),
    ("excess", "+8.1e", "sinkhorn_excess"),
    ("coupling", "8.2e", "gap_coupling"),
    ("error", "7.1e", "noise_coupling"),
)


def _heading(heading: str, form: str, name: str) -> str:
    return f"{heading:>{form.strip('+')[0]}}" + " " * name.startswith("gap_")


def _cell(arrays: dict[str, Any], form: str, name: str, size: int, tau: int) -> str:
    array = np.asarray(arrays[name])
    cell = format(array[tau] if name.startswith("limit_") else array[size, tau], form)
    if not name.startswith("gap_"):
        return cell
    return cell + (" " if arrays[name.replace("gap_", "resolved_")][size, tau] else "~")


_SAMPLINGS = {"pairs": SignPairs(Sobol()), "sobol": Sobol(), "independent": Independent()}


def run(config: LimitConfig, *, show_progress: bool | None = None) -> LimitResult:
    """Run the main job: every finite flow, the PDE's flow with their particles as tracers, and the gaps.

    **Arguments:**

    - `config`: [`wgf.experiments.LimitConfig`][].
    - `show_progress`: whether to draw a progress bar; None for one where standard error is a terminal.

    **Returns:** [`wgf.experiments.LimitResult`][].

    **Raises:** `ValueError` naming the option that cannot be used, before anything is compiled.
    """
    check_seed(config.seed)
    if config.sampling not in list(_SAMPLINGS):
        raise ValueError(f"`sampling` must be one of {list(_SAMPLINGS)}; got {config.sampling!r}.")
    if config.distributed is not None:
        start_processes(config.distributed)
    data_key, limit_key, *keys = jax.random.split(jax.random.key(config.seed), 2 + len(config.sizes))
    prompts = load_prompts(
        data_key, config.data, config.target, batch=config.batch, examples=config.examples, dim=config.dim
    )
    objective = Objective(prompts, config.weight_decay)
    encoder = Average(
        SoftmaxAttention(prompts.token_dim, key_dim=config.key_dim), Perceptron(prompts.token_dim, jnp.tanh)
    )
    initial = Gaussian(encoder, config.scale)
    finite = [
        Transformer(encoder, initial.layered(depth, width, key))
        for (depth, width), key in zip(_distinct(config.sizes), keys, strict=True)
    ]
    placed, width = Gaussian(encoder, config.scale, _SAMPLINGS[config.sampling]), _replicate_width(config)
    limits = [
        AveragedODE(encoder, placed.staged(width, key, steps=config.steps, joint=True))
        for key in jax.random.split(limit_key, config.replicates)
    ]
    return _solve(config, objective, finite, limits, show_progress)


def _solve(config, objective, finite, limits, show_progress) -> LimitResult:
    devices = None if config.mesh is None else parse_mesh(config.mesh)
    padded = _padded(finite, config.sizes, _COMPILING // config.batch)
    if devices is not None:
        objective, finite, padded, limits = shard((objective, finite, padded, limits), devices)
    # Each of many processes has all gaps to itself.
    shared = devices if jax.process_count() == 1 else None
    options: dict[str, Any] = {"rtol": config.rtol}

    def home(solution):
        """On one device, where gaps are computed."""
        return solution if devices is None else gather(solution)

    def train(meter, model, size):
        solution = flow(objective, model, config.taus, progress_meter=meter, **options)
        return home(eqx.tree_at(lambda s: s.models, solution, unpad(solution.models, *size)))

    def solve(meter):
        start = pool(limits).with_tracers(*finite)
        return home(flow(objective, start, config.taus, progress_meter=meter, throw=False, **options))

    def repeat(_):
        return home(flow_each(objective, limits, config.taus, **options))

    def compare(meter, solution, limit):
        return gap(solution, limit, mesh=shared)

    sizes = [f"{depth} layers, width {width}" for depth, width in config.sizes]
    # One program is compiled while another runs. On a mesh all processes must start theirs in the same order.
    with Stages(2 * len(finite) + 2, show_progress, at_once=2 if devices is None else 1) as stages:
        pooled = stages.start("Wasserstein-flow PDE", solve)
        trained = [
            stages.start(f"Transformer of {s}", train, model, size)
            for s, model, size in zip(sizes, padded, config.sizes, strict=True)
        ]
        members = stages.start("the PDE's replicates", repeat)
        limit = Replicates(pooled.result(), members.result()).raise_if_failed()
        found = [
            stages.start(f"distances at {s}", compare, each.result(), limit)
            for s, each in zip(sizes, trained, strict=True)
        ]
        solutions, gaps = ([each.result() for each in futures] for futures in (trained, found))
        return LimitResult(config, home(objective), limit, tuple(solutions), tuple(gaps))


def _padded(models: list[Transformer], sizes: tuple[Size, ...], most_free: int) -> list[Transformer]:
    """The models in shapes that several of them share: one program then trains these."""
    shapes = {size: group[0] for group in together(sizes, most_free) for size in group}
    return [pad(model, *shapes[size]) for model, size in zip(models, sizes, strict=True)]


def _distinct(sizes: tuple[Size, ...]) -> tuple[Size, ...]:
    if not sizes or len(set(sizes)) != len(sizes):
        raise ValueError(f"`sizes` must be distinct pairs of depth and width, at least one; got {sizes}.")
    return sizes


def _replicate_width(config: LimitConfig) -> int:
    """The particles of each replicate at each stage time."""
    at_least("width", config.width, 1)
    at_least("replicates", config.replicates, 2)
    unit = config.replicates * (2 if config.sampling == "pairs" else 1)
    if config.width % unit:
        parts = (
            f"{config.replicates} equal replicates"
            if unit == config.replicates
            else (f"pairs in each of the {config.replicates} replicates")
        )
        raise ValueError(f"`width` must be a multiple of {unit}, for {parts}; got {config.width}.")
    return config.width // config.replicates


def _saved(measure: AbstractMeasure, save: int) -> AbstractMeasure:
    return jax.tree.map(lambda leaf: leaf[save], measure)


@eqx.filter_jit
def _final(limit: AbstractMeasure, *finite: AbstractMeasure) -> tuple[Array, ...]:
    """The limit's depths, and the coordinates of the particles of each at the last save."""
    last = [_saved(measure, -1) for measure in (limit, *finite)]
    return last[0].depths, *(coordinates(measure.particles) for measure in last)


@eqx.filter_jit
def _moved(measure: AbstractMeasure) -> Array:
    """How far particles moved from the first save to the last, the mean square of each coordinate."""
    start, end = (coordinates(_saved(measure, save).particles) for save in (0, -1))
    return jnp.mean((end - start) ** 2, axis=(0, 1))


@eqx.filter_jit
def _clouds(limit: AbstractMeasure, finite: AbstractMeasure, depths: tuple[float, ...]) -> list[list[Array]]:
    """The coordinates of both laws' particles at the last save, at each depth."""

    def cloud(measure, depth):
        particles, _ = _saved(measure, -1).at(depth)
        return coordinates(jax.tree.map(lambda leaf: leaf[None], particles))[0]

    return [[cloud(measure, depth) for measure in (limit, finite)] for depth in depths]
