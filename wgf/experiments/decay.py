"""Weight decay: where the flow comes to rest, and whether that is the global minimum."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray
from matplotlib.figure import Figure

from .. import plot, prompts as data
from .._checks import at_least
from ..analysis import certificate
from ..encoders import Average, Head, Neuron, Pair, Perceptron, SoftmaxAttention
from ..flows import RosenbrockW, flow
from ..measures import Gaussian
from ..models import Transformer
from ..objective import Objective
from ..prompts import Prompts
from ._power_law import PowerLaw
from ._progress import Progress
from ._seed import check_seed

SETS = ("synthetic", "teacher", "diabetes", "shuffled")
DECAYS = (1e-1, 3.16e-2, 1e-2, 3.16e-3, 1e-3, 3.16e-4, 1e-4, 1e-5)


@dataclass(frozen=True)
class DecayConfig:
    """Follow the flow to rest at weight decays from 1e-5 to 1e-1: how low is the risk, and is it optimal?"""

    data: tuple[str, ...] = SETS
    """Data sets: 'synthetic' (in-context linear regression), 'teacher' (labels by a Transformer of the same kind, whose
    law bounds the least Q), 'diabetes' (rows of a real table), 'shuffled' (labels of 'synthetic', permuted)."""
    weight_decays: tuple[float, ...] = DECAYS
    """The weight decays lambda."""
    batch: int = 16
    """The number of prompts B."""
    examples: int = 4
    """The number of labelled examples N in each prompt, before the query."""
    dim: int = 2
    """The number of input features of each example."""
    depth: int = 4
    """Layers L."""
    width: int = 32
    """Particles M in each layer."""
    scale: float = 1.0
    """The standard deviation of the initial law of the particles."""
    teacher_width: int = 4
    """Particles in each layer of the teacher."""
    horizon: float = 20.0
    """How long to flow: tau ends at horizon / lambda."""
    rest: float = 3e-3
    """At rest: in the last time of 1 / lambda Q fell by this share of itself at the most."""
    fit: float = 1e-2
    """The labels count as fitted where the risk is at most this share of the null model's."""
    small: float = 3.2e-3
    """Laws in lambda are fitted up to here."""
    rtol: float = 1e-4
    """The relative tolerance of the flow in training time, for the worst particle."""
    saves: int = 12
    """Training times at which the flow is saved: 0, a geometric sequence up to 1 / lambda before the end, the end."""
    seed: int = 0
    """The seed of every random draw."""
    quick: bool = False
    """A size that takes seconds: one data set, three weight decays and a small model, unless these are given."""
    out: Path | None = None
    """The results folder; by default a new one under results/."""

    @classmethod
    def quick_default(cls) -> "DecayConfig":
        """The defaults of `--quick`."""
        return cls(
            data=("teacher",),
            weight_decays=(1e-1, 1e-2, 3e-3, 1e-3),
            batch=8,
            depth=2,
            width=32,
            small=1e-2,
            quick=True,
        )


@dataclass(frozen=True)
class Rest:
    """The end of one flow.

    - `taus`, `risks`: along the flow; risks as a share of the null model's ½ E[y²], `[saves]`.
    - `objective`: Q at the end; `bound`: the teacher's Q, above which no minimum lies (NaN without a teacher).
    - `motion`: the share of Q that was lost in the last time of 1/λ.
    - `gap`: the optimality certificate, the worst over layers, in units of Q.
    """

    data: str
    planted: bool
    weight_decay: float
    taus: Float[np.ndarray, " saves"]
    risks: Float[np.ndarray, " saves"]
    objective: float
    bound: float
    motion: float
    gap: float
    steps: int


@dataclass(frozen=True)
class DecayResult:
    """All flows of one call of the experiment."""

    config: DecayConfig
    ends: tuple[Rest, ...]

    def find(self, name: str, planted: bool = False) -> list[Rest]:
        """The ends on one data set, from the planted start or from ρ₀."""
        return [end for end in self.ends if (end.data, end.planted) == (name, planted)]

    def is_at_rest(self, end: Rest) -> bool:
        """Whether the flow had come to rest; if not it was stopped at its horizon."""
        return end.motion <= self.config.rest

    def laws(self, name: str) -> tuple[PowerLaw, PowerLaw]:
        """The final risk and the final Q as powers of λ, over the small weight decays."""
        ends = [end for end in self.find(name) if end.weight_decay <= self.config.small]
        decays = np.array([end.weight_decay for end in ends])
        risks, objectives = (np.array(x) for x in zip(*((end.risks[-1], end.objective) for end in ends), strict=True))
        return PowerLaw.fit(decays, risks), PowerLaw.fit(decays, objectives)

    def threshold(self, name: str) -> float:
        """The greatest λ that fits the labels, as all smaller ones do; 0 if the smallest does not."""
        greatest = 0.0
        for end in sorted(self.find(name), key=lambda end: end.weight_decay):
            if end.risks[-1] > self.config.fit:
                break
            greatest = end.weight_decay
        return greatest

    def table(self) -> str:
        """The table that the command prints: a line for each data set, start and weight decay."""
        head = (
            f"{'data':10} {'start':8} {'lambda':>8} {'risk':>8} {'Q':>8} {'Q/lambda':>8} {'bound':>8} {'gap/Q':>8} "
            f"{'motion':>8} {'':8} {'steps':>6}"
        )
        lines = [head, "-" * len(head), *map(self._line, self.ends), "-" * len(head), *self._notes()]
        return "\n".join(lines)

    def _line(self, end: Rest) -> str:
        bound = f"{'-':>8}" if np.isnan(end.bound) else f"{end.bound / end.weight_decay:8.3g}"
        state = "at rest" if self.is_at_rest(end) else "stopped"
        return (
            f"{end.data:10} {_start(end.planted):8} {end.weight_decay:8.2e} {end.risks[-1]:8.1e} {end.objective:8.1e} "
            f"{end.objective / end.weight_decay:8.3g} {bound} {end.gap:8.1e} {end.motion:8.1e} {state:8} "
            f"{end.steps:6d}"
        )

    def _notes(self) -> list[str]:
        config = self.config
        notes = [
            "risk: as a share of the null model's; bound: the teacher's Q / lambda, above any minimum's;",
            "gap: the certificate, min over theta of dQ/drho minus its mean (worst layer): 0 at a global minimum of Q,",
            "below 0 proves that another law has a lower Q; motion: share of Q lost in the last 1/lambda of time;",
            f"at rest: motion <= {config.rest:g}; stopped: still moving at tau = {config.horizon:g} / lambda, the end;",
            "planted: start with keys, queries and neurons at 0, a subspace that the flow cannot leave",
            f"B = {config.batch}, N = {config.examples}; L = {config.depth}, M = {config.width}; rho_0 = "
            f"N(0, {config.scale:g}^2); float64",
        ]
        for name in config.data:
            notes.append(f"{name}: risk <= {config.fit:g} of the null model's up to lambda = {self.threshold(name):g}")
            if sum(end.weight_decay <= config.small for end in self.find(name)) >= 3:
                risk, objective = self.laws(name)
                notes += [f"{name}: risk, {risk}", f"{name}: Q, {objective}"]
        return notes

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`, each with leading axis `[flow]`; `taus` and `risks` with `[saves]`."""
        return {
            "data": np.array([end.data for end in self.ends]),
            "at_rest": np.array([self.is_at_rest(end) for end in self.ends]),
            **{
                name: np.array([getattr(end, name) for end in self.ends])
                for name in ("planted", "weight_decay", "taus", "risks", "objective", "bound", "motion", "gap", "steps")
            },
        }

    def figure(self) -> Figure:
        """Final risk, Q/λ and the certificate against λ."""
        figure = Figure(figsize=(12.5, 4.4), layout="constrained")
        risk, scaled, gap = figure.subplots(1, 3)
        names = {name: self.find(name) for name in self.config.data}
        names[f"{self.config.data[0]}, planted start"] = self.find(self.config.data[0], planted=True)
        first = self.find(self.config.data[0])
        decays = np.array([end.weight_decay for end in first])
        line = ("proportional to λ", decays, first[-1].risks[-1] * decays / decays[-1])
        bounds = {end.weight_decay: end.bound / end.weight_decay for end in self.ends if np.isfinite(end.bound)}
        bound = ("teacher: proven bound", np.array(list(bounds)), np.array(list(bounds.values()))) if bounds else None
        panels = (
            (risk, line, "final risk / null risk", "Risk at the end", lambda end: end.risks[-1]),
            (scaled, bound, "final Q / λ", "Objective at the end", lambda end: end.objective / end.weight_decay),
            (gap, None, "−gap / Q (1e-6: none)", "Optimality certificate", lambda end: max(-end.gap, 1e-6)),
        )
        for axes, guide, label, title, value in panels:
            curves = {name: self._curve(ends, value) for name, ends in names.items()}
            plot.swept(axes, curves, guide, ("weight decay λ", label), title)
        return figure

    def _curve(self, ends: list[Rest], value: Callable[[Rest], float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        columns = ((end.weight_decay, value(end), self.is_at_rest(end)) for end in ends)
        decays, values, rest = map(np.array, zip(*columns, strict=True))
        return decays, values, rest


def _start(planted: bool) -> str:
    return "planted" if planted else "rho_0"


def run(config: DecayConfig, *, show_progress: bool | None = None) -> DecayResult:
    """Follow every flow to rest, in float64, and ask the certificate at its end.

    **Arguments:**

    - `config`: [`wgf.experiments.DecayConfig`][].
    - `show_progress`: whether to draw a progress bar; None for one where standard error is a terminal.

    **Returns:** [`wgf.experiments.DecayResult`][].

    **Raises:** `ValueError` naming the option that cannot be used, before anything is compiled.
    """
    _check(config)
    runs = [(name, False, decay) for name in config.data for decay in config.weight_decays]
    runs += [(config.data[0], True, decay) for decay in config.weight_decays]
    ends = []
    # At small weight decay the flow's last motion is far below what float32 can tell from rounding.
    with jax.enable_x64(True), Progress(len(runs), show_progress) as progress:
        for name, planted, decay in runs:
            with progress.stage(f"{name}, {_start(planted)}, lambda = {decay:g}"):
                ends.append(_follow(config, name, planted, decay))
    return DecayResult(config, tuple(ends))


def _check(config: DecayConfig) -> None:
    check_seed(config.seed)
    for name in ("batch", "examples", "dim", "depth", "width", "teacher_width"):
        at_least(name, getattr(config, name), 1)
    at_least("saves", config.saves, 4)
    if config.horizon <= 1:
        raise ValueError(f"`horizon` must be above 1, in units of 1 / lambda; got {config.horizon}.")
    if not config.data or not set(config.data) <= set(SETS):
        raise ValueError(f"`data` must be of {SETS}, one at least; got {config.data}.")
    if not config.weight_decays or min(config.weight_decays) <= 0:
        raise ValueError(f"`weight_decays` must be positive, one at least; got {config.weight_decays}.")


def _follow(config: DecayConfig, name: str, planted: bool, decay: float) -> Rest:
    prompts, teacher = load(config, name)
    objective = Objective(prompts, decay)
    model = start(config, prompts, planted)
    before = np.geomspace(min(1e-2, (config.horizon - 1) / 2), config.horizon - 1, config.saves - 2)
    taus = np.concatenate([[0.0], before, [config.horizon]]) / decay
    # Stiff by 1/λ, in no more directions than there are prompts: what this solver is made for.
    solution = flow(
        objective,
        model,
        jnp.asarray(taus),
        solver=RosenbrockW(),
        rtol=jnp.asarray(config.rtol),
        atol=jnp.asarray(1e-2 * config.rtol),
        max_steps=20_000,
    )
    end = solution.model_at(-1)
    q, null = float(solution.objective[-1]), float(prompts.label_rms()) ** 2 / 2
    found = certificate(objective, end, key=jax.random.key(config.seed))
    return Rest(
        name,
        planted,
        decay,
        taus,
        risks=np.asarray(solution.risk) / null,
        objective=q,
        bound=float("nan") if teacher is None else float(objective(teacher)),
        motion=float(solution.objective[-2]) / q - 1,
        gap=float(found.value) / q,
        steps=int(solution.stats["num_steps"]),
    )


def load(config: DecayConfig, name: str) -> tuple[Prompts, Transformer | None]:
    """The prompts of a data set, and its teacher where it has one."""
    sizes: dict[str, Any] = {"batch": config.batch, "examples": config.examples, "dim": config.dim, "positions": 0}
    data_key, label_key = jax.random.split(jax.random.key(config.seed))
    if name == "diabetes":
        return data.diabetes(data_key, **sizes), None
    prompts = data.linear_regression(data_key, **sizes)
    if name == "synthetic":
        return prompts, None
    if name == "shuffled":
        return _relabel(prompts, jax.random.permutation(label_key, prompts.labels)), None
    encoder = _encoder(prompts)
    teacher = Transformer(encoder, Gaussian(encoder, 1.0).layered(config.depth, config.teacher_width, label_key))
    return _relabel(prompts, Objective(prompts).outputs(teacher)), teacher


def _relabel(prompts: Prompts, labels) -> Prompts:
    return eqx.tree_at(lambda p: p.labels, prompts, labels)


def _encoder(prompts: Prompts) -> Average:
    return Average(SoftmaxAttention(prompts.token_dim, key_dim=1), Perceptron(prompts.token_dim, jnp.tanh))


def start(config: DecayConfig, prompts: Prompts, planted: bool) -> Transformer:
    r"""The model at τ = 0: drawn from ρ₀, or from it with keys, queries and neurons set to zero.

    The planted start is a subspace that the flow cannot leave: the score is bilinear in K and Q, and
    \( w_{out} \tanh(w_{in}^\top T + b) \) has no gradient at zero. Attention is uniform there and all of it linear.
    """
    encoder = _encoder(prompts)
    key: PRNGKeyArray = jax.random.fold_in(jax.random.key(config.seed), 1)
    model = Transformer(encoder, Gaussian(encoder, config.scale).layered(config.depth, config.width, key))
    if not planted:
        return model
    zeros: Any = jax.tree.map(jnp.zeros_like, model.measure.particles)
    head: Head = model.measure.particles.f
    neuron: Neuron = zeros.h
    return model.with_particles(Pair(zeros.f._replace(value=head.value), neuron))
