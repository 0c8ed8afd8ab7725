"""One model of `wgf rest`: its flow to rest, and its conditional gradient from there."""

from dataclasses import dataclass
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ...analysis import certificate, conditional_gradient
from ...analysis._slots import with_slots
from ...flows import FlowSolution, RosenbrockW, flow
from ...models import AbstractModel
from ...objective import Objective
from ._config import RestConfig


@dataclass(frozen=True)
class Stage:
    """One model of a trial: at rest, after more flow alone, or after the rounds.

    - `tau`: the training time so far, with that of all rounds.
    - `risk`: the risk, a share of the null model's ½ E[y²]; `objective`: Q; `outputs`: `[B]`.
    - `gap`: the certificate of the worst depth in units of Q.
    - `particles`: the mean number of particles of positive weight per depth.
    - `steps`: the steps of the flow since the trial's start, or since rest for the later stages.
    """

    tau: float
    risk: float
    objective: float
    outputs: Float[np.ndarray, " batch"]
    gap: float
    particles: float
    steps: int


@dataclass(frozen=True)
class Trial:
    """One model on one data set. Risks are shares of the null model's ½ E[y²].

    - `depth`, `width`: L and M of a finite model; for the PDE its stage times and the particles at each.
    - `taus`, `risks`, `objectives`: along the flow to rest, `[saves]`.
    - `motion`: the share of Q that was lost in the last time interval of length 1/λ.
    - `rest`, `longer`, `end`: the stages. `longer` flows from rest for as long as all rounds together, without them.
    - `round_objectives`: Q from rest on, after each round of the conditional gradient, `[rounds + 1]`.
    - `gaps`: the certificate in units of Q, `[rounds + 1]`. `lacking`: the part of it that is missing support.
    - `failure`: why a flow failed; empty if none did. All numbers of a failed trial are NaN.
    """

    data: str
    is_limit: bool
    depth: int
    width: int
    taus: Float[np.ndarray, " saves"]
    risks: Float[np.ndarray, " saves"]
    objectives: Float[np.ndarray, " saves"]
    motion: float
    rest: Stage
    longer: Stage
    end: Stage
    round_objectives: Float[np.ndarray, " rows"]
    gaps: Float[np.ndarray, " rows"]
    lacking: Float[np.ndarray, " rows"]
    failure: str = ""

    @classmethod
    def failed(cls, config: RestConfig, data: str, size: tuple[bool, int, int], reason: str) -> "Trial":
        """A trial that failed for a reason. Its numbers are NaN."""
        taus, nan, row = times(config), float("nan"), np.full(1, np.nan)
        stage = Stage(nan, nan, nan, np.full(config.batch, nan), nan, nan, 0)
        curve = np.full(len(taus), nan)
        return cls(data, *size, taus, curve, curve, nan, stage, stage, stage, row, row, row, reason)

    @property
    def name(self) -> str:
        """The name of the model."""
        return "PDE" if self.is_limit else f"L = {self.depth}, M = {self.width}"

    @property
    def rounds(self) -> int:
        """The number of rounds of the conditional gradient."""
        return len(self.gaps) - 1


def times(config: RestConfig) -> np.ndarray:
    """The saved training times: 0, a geometric sequence up to 1/λ before the end, and the end."""
    before = np.geomspace(1e-4 * config.horizon, config.horizon - 1, config.saves - 2)
    return np.concatenate([[0.0], before, [config.horizon]]) / config.weight_decay


def follow(
    config: RestConfig, data: str, objective: Objective, model: AbstractModel, is_limit: bool, key: PRNGKeyArray
) -> Trial:
    """Flow to rest, and go on from there by conditional gradient, and for comparison by flow alone."""
    size, taus = model.measure.weights.shape, times(config)
    # Slots from the start: one compiled program serves all flows. To compile takes longer than to solve.
    flows = _segments(config, objective, with_slots(model, config.spare), taus)
    at_rest, steps = flows[-1].model_at(-1), sum(int(part.stats["num_steps"]) for part in flows)
    history = conditional_gradient(
        objective,
        at_rest,
        key=key,
        tolerance=config.tolerance,
        rounds=config.rounds,
        mass=config.mass,
        spare=0,
        tau=config.round_length / config.weight_decay,
        **_options(config),
    )
    # At least one round's length, so that the comparison exists without rounds too.
    span = max(len(history.steps), 1) * config.round_length / config.weight_decay
    (longer,) = _segments(config, objective, at_rest, np.array([0.0, span]))
    found = certificate(objective, longer.model_at(-1), key=key)

    def stage(model: AbstractModel, more: float, gap: float, steps: int) -> Stage:
        return _stage(objective, model, taus[-1] + more, gap, steps)

    objectives = _along(flows, "objective")
    return Trial(
        data,
        is_limit,
        *size,
        taus=taus,
        risks=_along(flows, "risk") / _null(objective),
        objectives=objectives,
        motion=float(objectives[-2] / objectives[-1] - 1),
        rest=stage(at_rest, 0.0, history.certificate[0], steps),
        longer=stage(longer.model_at(-1), span, float(found.relative_gap), int(longer.stats["num_steps"])),
        end=stage(history.model, span, history.certificate[-1], int(history.steps.sum())),
        round_objectives=history.objective,
        gaps=history.certificate,
        lacking=history.lacking,
    )


def _segments(config: RestConfig, objective: Objective, model: AbstractModel, taus: np.ndarray) -> list[FlowSolution]:
    """The flow from each time to the next."""
    flows: list[FlowSolution] = []
    for ends in pairwise(taus):
        flows.append(flow(objective, model, jnp.array(ends), **_options(config)))
        model = flows[-1].model_at(-1)
    return flows


def _stage(objective: Objective, model: AbstractModel, tau: float, gap: float, steps: int) -> Stage:
    outputs = objective.outputs(model)
    risk = float(objective.score(outputs))
    q = risk + float(objective.weight_decay * model.measure.second_moment()) / 2
    particles = float(np.mean(np.sum(np.asarray(model.measure.weights) > 0, axis=1)))
    return Stage(tau, risk / _null(objective), q, np.asarray(outputs), float(gap), particles, steps)


def _null(objective: Objective) -> float:
    """The risk of the null model."""
    return float(objective.prompts.label_rms()) ** 2 / 2


def _along(ends: list[FlowSolution], name: str) -> np.ndarray:
    """A named array of all saves, from flows that each have two."""
    return np.concatenate([np.asarray(getattr(ends[0], name))[:1], *(np.asarray(getattr(x, name))[1:] for x in ends)])


def _options(config: RestConfig) -> dict:
    """The options of every flow. RosenbrockW is made for the ratio 1/λ of fast and slow times."""
    rtol = jnp.asarray(config.rtol)
    return {"solver": RosenbrockW(), "rtol": rtol, "atol": 1e-2 * rtol, "steady": None, "max_steps": 20_000}
