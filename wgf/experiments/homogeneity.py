"""Which of the theory's assumptions an encoder meets, and what the flow then does."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy import stats

from .. import plot
from .._checks import at_least
from ..analysis import Assumptions, Lipschitz, check_assumptions
from ..flows import RESULTS, FlowSolution, RosenbrockW, flow
from ..measures import Gaussian, coordinates
from ..models import Transformer
from ..objective import Objective
from ..prompts import Prompts
from ._data import load_prompts
from ._encoder_zoo import Specimen, specimens
from ._progress import Progress
from ._seed import check_seed

CLASSES = ("fully homogeneous", "partially", "not at all")


@dataclass(frozen=True)
class HomogeneityConfig:
    """Measure the theory's assumptions for 21 encoders, train each from the same law, data and seeds, and compare."""

    data: str = "synthetic"
    """Where prompts come from: 'synthetic' (in-context linear regression), 'diabetes' or the path of a CSV file."""
    target: str | None = None
    """The column to predict, where the data is a CSV file."""
    batch: int = 16
    """The number of prompts B."""
    examples: int = 4
    """The number of labelled examples N in each prompt, before the query."""
    dim: int = 2
    """The number of input features of each example."""
    encoders: tuple[str, ...] = ()
    """The encoders to run, as group and name ('neuron ReLU', 'head softmax', 'block causal'); by default all."""
    depth: int = 4
    """Layers L of the finite model."""
    width: int = 32
    """Particles M in each layer."""
    key_dim: int = 2
    """The dimension k of keys and queries."""
    scale: float = 0.7
    """The standard deviation of the initial law of the particles."""
    weight_decay: float = 1e-4
    """The weight decay lambda."""
    horizon: float = 200.0
    """The training time tau at which every flow ends."""
    rtol: float = 1e-5
    """The relative and absolute tolerance of the flow in training time, for the root mean square over all particles."""
    least_step: float = 0.005
    """The least step in tau, at which steps are taken whatever their error."""
    windows: int = 800
    """Equal times between which the moves of the particles are compared with the fall of Q."""
    saves: int = 12
    """Training times at which the risk is saved, 0 and then spaced as a geometric sequence."""
    seeds: int = 3
    """Independent draws of prompts and particles; the prompts of a seed are the same for all encoders."""
    samples: int = 256
    """Particles over which the assumptions are measured."""
    seed: int = 0
    """The seed of every random draw."""
    quick: bool = False
    """A size that takes seconds: a few encoders, small models and short times, unless these are given."""
    out: Path | None = None
    """The results folder; by default a new one under results/."""

    @classmethod
    def quick_default(cls) -> "HomogeneityConfig":
        """The defaults of `--quick`."""
        few = ("neuron ReLU", "neuron tanh", "neuron bounded tanh", "head softmax")
        return cls(encoders=few, batch=8, depth=2, horizon=40.0, windows=160, seeds=2, samples=64, quick=True)


@dataclass(frozen=True)
class Trial:
    """One encoder: what was measured of it, and its flows.

    - `risk`: of each seed along training, as a share of the null model's ½ E[y²]; NaN once a flow has failed.
      `[seeds, saves]`.
    - `violation`: by how much the fall of Q differs from the action of the particles' moves, as a share of the fall:
      the error of the steps in τ. `[seeds]`.
    - `excess`: the same of the dissipation ∫‖v‖² along the steps. More than the fall where steps leap back and forth
      over a kink, along which the particles slide more slowly than v on either side, or over a steep valley. `[seeds]`.
    """

    specimen: Specimen
    assumptions: Assumptions
    risk: Float[np.ndarray, "seeds saves"]
    violation: Float[np.ndarray, " seeds"]
    excess: Float[np.ndarray, " seeds"]

    @property
    def label(self) -> str:
        """Group and name."""
        return f"{self.specimen.group} {self.specimen.name}"

    @property
    def final(self) -> Float[np.ndarray, " seeds"]:
        """The last risk of each seed, as a share of the null model's."""
        return self.risk[:, -1]

    @property
    def finished(self) -> np.ndarray:
        """Whether each seed's flow reached its end."""
        return np.isfinite(self.final)

    @property
    def median(self) -> float:
        """The median of the last risks; infinite where half of the flows failed."""
        return float(np.median(np.where(self.finished, self.final, np.inf)))

    @property
    def homogeneity(self) -> str:
        """One of `CLASSES`."""
        found = self.assumptions
        return CLASSES[0] if found.joint is not None else CLASSES[1] if found.partial else CLASSES[2]


@dataclass(frozen=True)
class HomogeneityResult:
    """All encoders of one call of the experiment."""

    config: HomogeneityConfig
    taus: Float[np.ndarray, " saves"]
    trials: tuple[Trial, ...]

    @property
    def bare(self) -> tuple[Trial, ...]:
        """The neurons and the heads, without the blocks that are made of both."""
        return tuple(trial for trial in self.trials if trial.specimen.group != "block")

    def table(self) -> str:
        """The table that the command prints: a line for each encoder."""
        head = (
            f"{'encoder':16} {'degrees':>12} {'all':>3} {'1-hom.':6} {'T':>3} {'th.':>3} {'worst':>7} {'':>5} "
            f"{'mean':>7} {'':>5} {'kernel':>6} {'risk':>7} {'least':>7} {'most':>7} "
            f"{'energy':>6} {'leaps':>5}"
        )
        lines = [head, "-" * len(head)]
        for group in dict.fromkeys(trial.specimen.group for trial in self.trials):
            lines += [f"{group}s", *(_line(trial) for trial in self.trials if trial.specimen.group == group)]
        return "\n".join([*lines, "-" * len(head), *self._notes()])

    def _notes(self) -> list[str]:
        config = self.config
        return [
            "degrees: of (w_in, w_out) of a neuron, (value, key, query) of a head; all: of all together; - for none;",
            "1-hom.: leaves in which g is together 1-homogeneous; T, th.: growth exponents in T and theta;",
            "worst, mean: how fast the gradient in theta changes, and its power of distance (0 Lipschitz, -1 a jump);",
            "kernel: its least eigenvalue / greatest on distinct prompts;",
            f"risk: median of {config.seeds} seeds at tau = {config.horizon:g}, as a share of the null model's, with "
            "least and most (x: failed flows);",
            "energy: difference of the fall of Q and the action of the particles' moves, as a share (worst seed);",
            "leaps: excess of the dissipation along the steps over the fall: they leap over kinks or steep valleys;",
            f"data {config.data}: B = {config.batch}, N = {config.examples}; L = {config.depth}, M = {config.width}; "
            f"lambda = {config.weight_decay:g}; rho_0 = N(0, {config.scale:g}^2)",
            *self._comparison(),
        ]

    def _comparison(self) -> list[str]:
        """The paper's open question, over the neurons and heads."""
        notes = []
        for name in CLASSES:
            medians = [trial.median for trial in self.bare if trial.homogeneity == name]
            if medians:
                notes.append(
                    f"{name}: {len(medians)} of the neurons and heads, median risk {np.median(medians):.2g} "
                    f"({min(medians):.2g} to {max(medians):.2g})"
                )
        return [*notes, *map(str, self.correlations())]

    def correlations(self) -> list["Correlation"]:
        """Rank correlations of the final risk with what was measured: over neurons and heads, then neurons alone."""
        neurons = tuple(trial for trial in self.trials if trial.specimen.group == "neuron")
        found = [_correlation(self.bare, "", name, value) for name, value in _MEASURED.items()]
        name, value = _EIGENVALUE
        return [c for c in (*found, _correlation(neurons, ", neurons alone", name, value)) if c is not None]

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`: leading axis `[encoder]`, then `[seeds, saves]`."""
        found = [trial.assumptions for trial in self.trials]
        return {
            "encoders": np.array([trial.label for trial in self.trials]),
            "classes": np.array([trial.homogeneity for trial in self.trials]),
            "taus": self.taus,
            "risk": np.stack([trial.risk for trial in self.trials]),
            "violation": np.stack([trial.violation for trial in self.trials]),
            "excess": np.stack([trial.excess for trial in self.trials]),
            "joint": np.array([np.nan if f.joint is None else f.joint for f in found]),
            "growth": np.array([[f.token_growth, f.particle_growth] for f in found]),
            "lipschitz": np.array([[f.worst, f.mean] for f in found]),
            "least_eigenvalue": np.array([f.least_eigenvalue for f in found]),
        }

    def figure(self) -> Figure:
        """Final risks of all encoders, risk along training, and risk against the kernel's least eigenvalue."""
        figure = Figure(figsize=(12.5, 6.2), layout="constrained")
        panels: Any = figure.subplot_mosaic([["all", "along"], ["all", "kernel"]], width_ratios=(1.15, 1))
        axes, above, below = (panels[name] for name in ("all", "along", "kernel"))
        plot.strips(
            axes,
            [trial.label for trial in self.trials],
            [trial.final for trial in self.trials],
            _kinds(self.trials),
            CLASSES,
            f"risk / null risk at τ = {self.config.horizon:g}",
            "What the flow reaches (dots: seeds, bars: medians)",
        )
        bare = self.bare
        medians = [np.median(trial.risk[:, 1:], axis=0) for trial in bare]
        plot.kind_curves(above, self.taus[1:], medians, _kinds(bare), "Neurons and heads: medians along training")
        shown = [trial for trial in bare if np.isfinite(trial.median)]
        plot.kind_points(
            below,
            np.array([max(trial.assumptions.least_eigenvalue, 1e-12) for trial in shown]),
            np.array([trial.median for trial in shown]),
            [trial.specimen.name + " head" * (trial.specimen.group == "head") for trial in shown],
            _kinds(shown),
            ("kernel's least eigenvalue / greatest (1e-12: rounding)", "final risk / null risk"),
        )
        return figure


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of one measured property with the final risk, over `count` encoders."""

    name: str
    value: float
    p_value: float
    count: int

    @classmethod
    def of(cls, name: str, x: list[float], y: list[float]) -> "Correlation":
        """The correlation, with a p-value from random permutations."""

        def rank(x: np.ndarray) -> float:
            found: Any = stats.spearmanr(x, y)
            return found.statistic

        test: Any = stats.permutation_test((x,), rank, permutation_type="pairings", n_resamples=1999, rng=0)
        return cls(name, float(test.statistic), float(test.pvalue), len(x))

    def __str__(self) -> str:
        return (
            f"rank correlation of risk with {self.name}: {self.value:+.2f} (p = {self.p_value:.2g}, "
            f"{self.count} encoders)"
        )


def run(config: HomogeneityConfig, *, show_progress: bool | None = None) -> HomogeneityResult:
    """Measure every encoder's assumptions, and train it from every seed, in float64.

    **Arguments:**

    - `config`: [`wgf.experiments.HomogeneityConfig`][].
    - `show_progress`: whether to draw a progress bar; None for one where standard error is a terminal.

    **Returns:** [`wgf.experiments.HomogeneityResult`][].

    **Raises:** `ValueError` naming the option that cannot be used, before anything is compiled.
    """
    check_seed(config.seed)
    at_least("seeds", config.seeds, 1)
    at_least("saves", config.saves, 2)
    at_least("windows", config.windows, 1)
    # Degrees, jumps and least eigenvalues are told from rounding: the wider the numbers, the further down.
    with jax.enable_x64(True):
        data = [_prompts(config, key) for key in _keys(config)]
        chosen = _choose(config, specimens(data[0].token_dim, config.key_dim))
        taus = np.concatenate([[0.0], np.geomspace(min(1.0, config.horizon / 10), config.horizon, config.saves - 1)])
        trials = []
        with Progress(len(chosen), show_progress) as progress:
            for specimen in chosen:
                with progress.stage(f"{specimen.group} {specimen.name}"):
                    trials.append(_try(config, specimen, data, taus))
    return HomogeneityResult(config, taus, tuple(trials))


def _keys(config: HomogeneityConfig):
    return jax.random.split(jax.random.key(config.seed), config.seeds)


def _prompts(config: HomogeneityConfig, key) -> Prompts:
    sizes = {"batch": config.batch, "examples": config.examples, "dim": config.dim}
    return load_prompts(jax.random.fold_in(key, 0), config.data, config.target, **sizes)


def _choose(config: HomogeneityConfig, known: tuple[Specimen, ...]) -> tuple[Specimen, ...]:
    names = {f"{specimen.group} {specimen.name}": specimen for specimen in known}
    if unknown := [name for name in config.encoders if name not in names]:
        raise ValueError(f"`encoders` must be of {sorted(names)}; got {unknown}.")
    return tuple(names[name] for name in config.encoders) if config.encoders else known


def _try(config: HomogeneityConfig, specimen: Specimen, data: list[Prompts], taus: np.ndarray) -> Trial:
    keys = _keys(config)
    found = check_assumptions(
        specimen.encoder, data[0], key=jax.random.fold_in(keys[0], 1), scale=config.scale, samples=config.samples
    )
    # Equal windows, and finer ones at first, when all moves fast.
    every = np.union1d(taus, np.linspace(0, config.horizon, config.windows + 1))
    every = np.union1d(every, np.geomspace(1e-3, 1, 100)[:-1] * taus[1])
    solutions = [_flow(config, specimen, *seed, every) for seed in zip(data, keys, strict=True)]
    kept = np.searchsorted(every, taus)
    null = np.array([float(prompts.label_rms()) ** 2 / 2 for prompts in data])
    return Trial(
        specimen,
        found,
        risk=np.stack([_risk(solution)[kept] for solution in solutions]) / null[:, None],
        violation=np.array([abs(_share(solution, _action(solution))) for solution in solutions]),
        excess=np.array([_share(solution, float(solution.dissipated[-1])) for solution in solutions]),
    )


def _risk(solution: FlowSolution) -> np.ndarray:
    """The risks; a flow that failed has no last one."""
    return np.where(solution.result == RESULTS.successful, solution.risk, np.nan)


def _share(solution: FlowSolution, spent: float) -> float:
    """By how much what was spent exceeds the fall of Q, as a share of the fall."""
    return spent / float(solution.objective[0] - solution.objective[-1]) - 1


def _action(solution: FlowSolution) -> float:
    r"""\( \sum \|\Delta\theta\|^2_\rho / \Delta\tau \) over the saves, from below: \( \int \|\dot\theta\|^2 \).

    It takes the particles at what they do. Where the gradient jumps, a flow follows the convex hull of its values on
    both sides (A. F. Filippov, *Differential equations with discontinuous righthand sides*, 1988), and the identity
    holds for that motion; the velocities that the steps see belong to one side or the other.
    """
    measure = solution.models.measure
    places = np.asarray(jax.vmap(coordinates)(measure.particles))
    squares = np.sum(np.diff(places, axis=0) ** 2, axis=-1)
    masses = np.asarray(solution.model_at(0).measure.masses)
    return float(np.sum(np.sum(squares * masses, axis=(1, 2)) / np.diff(np.asarray(solution.taus))))


def _flow(config: HomogeneityConfig, specimen: Specimen, prompts: Prompts, key, taus: np.ndarray) -> FlowSolution:
    initial = Gaussian(specimen.encoder, config.scale)
    model = Transformer(specimen.encoder, initial.layered(config.depth, config.width, jax.random.fold_in(key, 2)))
    objective = Objective(prompts, config.weight_decay)
    # A gradient that jumps (ReLU) would drive adaptive steps to nothing: they stop at a floor, where an explicit method
    # would not be stable on steep valleys (squared ReLU); the energy identity says what that costs.
    controller = diffrax.PIDController(config.rtol, config.rtol, dtmin=jnp.asarray(config.least_step))
    return flow(
        objective,
        model,
        jnp.asarray(taus),
        solver=RosenbrockW(),
        controller=controller,
        max_steps=math.ceil(config.horizon / config.least_step) + len(taus),
        throw=False,
    )


_EIGENVALUE = ("kernel's least eigenvalue", lambda trial: trial.assumptions.least_eigenvalue)
_MEASURED: dict[str, Callable[[Trial], float]] = {
    "full homogeneity (1 or 0)": lambda trial: float(trial.homogeneity == CLASSES[0]),
    _EIGENVALUE[0]: _EIGENVALUE[1],
    "growth in T": lambda trial: trial.assumptions.token_growth,
    "growth in theta": lambda trial: trial.assumptions.particle_growth,
    "mean Lipschitz constant": lambda trial: trial.assumptions.mean.constant,
}


def _correlation(trials: tuple[Trial, ...], among: str, name: str, value: Callable[[Trial], float]):
    """The correlation of a measured property with the risk; None where it does not vary."""
    values = [value(trial) for trial in trials]
    return Correlation.of(name + among, values, [t.median for t in trials]) if len(set(values)) > 1 else None


def _kinds(trials: Iterable[Trial]) -> list[int]:
    return [CLASSES.index(trial.homogeneity) for trial in trials]


def _line(trial: Trial) -> str:
    found, final = trial.assumptions, trial.final
    degrees = "".join(f"{_degree(k):>2}" for k in found.homogeneity.values())
    failed = "" if trial.finished.all() else f" x{(~trial.finished).sum()}"
    least, most = (f"{fold(final):7.1e}" if trial.finished.any() else f"{'-':>7}" for fold in (np.nanmin, np.nanmax))
    return (
        f"{trial.specimen.name:16} {degrees:>12} {_degree(found.joint):>3} {_leaves(found.partial):6} "
        f"{found.token_growth:3.1f} {found.particle_growth:3.1f} {_lipschitz(found.worst)} {_lipschitz(found.mean)} "
        f"{found.least_eigenvalue:6.0e} {trial.median:7.1e} {least} {most} "
        f"{trial.violation.max():6.0e} {max(0, trial.excess.max()):5.0e}{failed}"
    )


def _degree(degree: float | None) -> str:
    return "-" if degree is None else f"{degree:g}"


def _leaves(names: tuple[str, ...]) -> str:
    """Leaf names of a block without its halves, shortened to fit."""
    return "+".join(name.split(".")[-1].replace("value", "V").replace("w_", "") for name in names) or "-"


def _lipschitz(found: Lipschitz) -> str:
    return f"{found.constant:7.2g} {found.exponent:5.2f}"
