"""One model of `wgf rest`: its flow to rest, and its conditional gradient from there."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ...analysis import conditional_gradient
from ...flows import FlowSolution, RosenbrockW, flow
from ...models import AbstractModel
from ...objective import Objective
from ._config import RestConfig


@dataclass(frozen=True)
class Trial:
    """One model on one data set. Risks are shares of the null model's ½ E[y²].

    - `depth`, `width`: L and M of a finite model; for the PDE its stage times and the particles at each.
    - `taus`, `risks`, `objectives`, `outputs`: along the flow, `[saves]`; outputs `[saves, B]`.
    - `motion`: the share of Q that was lost in the last time interval of length 1/λ.
    - `round_risks`, `round_objectives`: R and Q from rest on, after each round of the conditional gradient,
      `[rounds + 1]`.
    - `gaps`: the certificate in units of Q, `[rounds + 1]`. `lacking`: the part of it that is missing support.
    - `particles`: the mean number of particles of positive weight per depth, `[rounds + 1]`.
    - `end_outputs`: the outputs of the last model, `[B]`.
    - `steps`: the steps of the flow to rest, and of all rounds together.
    - `failure`: why a flow failed; empty if none did. All numbers of a failed trial are NaN.
    """

    data: str
    is_limit: bool
    depth: int
    width: int
    taus: Float[np.ndarray, " saves"]
    risks: Float[np.ndarray, " saves"]
    objectives: Float[np.ndarray, " saves"]
    outputs: Float[np.ndarray, "saves batch"]
    motion: float
    round_risks: Float[np.ndarray, " rows"]
    round_objectives: Float[np.ndarray, " rows"]
    gaps: Float[np.ndarray, " rows"]
    lacking: Float[np.ndarray, " rows"]
    particles: Float[np.ndarray, " rows"]
    end_outputs: Float[np.ndarray, " batch"]
    steps: tuple[int, int]
    failure: str = ""

    @classmethod
    def failed(cls, config: RestConfig, data: str, size: tuple[bool, int, int], reason: str) -> "Trial":
        """A trial that failed for a reason. Its numbers are NaN."""
        taus, nan, one = times(config), float("nan"), np.full(1, np.nan)
        flat, outputs = np.full(len(taus), nan), np.full((len(taus), config.batch), nan)
        return cls(data, *size, taus, flat, flat, outputs, nan, one, one, one, one, one, outputs[0], (0, 0), reason)

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
    """Flow to rest, and go on from there by conditional gradient."""
    taus, motion = times(config), _options(config)
    # From save to save, with the program that the rounds use too: to compile takes longer than to solve.
    ends = [flow(objective, model, jnp.asarray(taus[:2]), **motion)]
    for start in range(1, len(taus) - 1):
        ends.append(flow(objective, ends[-1].model_at(-1), jnp.asarray(taus[start : start + 2]), **motion))
    history = conditional_gradient(
        objective,
        ends[-1].model_at(-1),
        key=key,
        tolerance=config.tolerance,
        rounds=config.rounds,
        mass=config.mass,
        spare=0,
        tau=config.round_length / config.weight_decay,
        **motion,
    )
    null = float(objective.prompts.label_rms()) ** 2 / 2
    objectives = _along(ends, "objective")
    return Trial(
        data,
        is_limit,
        *model.measure.weights.shape,
        taus=taus,
        risks=_along(ends, "risk") / null,
        objectives=objectives,
        outputs=_along(ends, "outputs"),
        motion=float(objectives[-2] / objectives[-1] - 1),
        round_risks=history.risk / null,
        round_objectives=history.objective,
        gaps=history.certificate,
        lacking=history.lacking,
        particles=history.particles.mean(axis=1),
        end_outputs=np.asarray(objective.outputs(history.model)),
        steps=(sum(int(end.stats["num_steps"]) for end in ends), int(history.steps.sum())),
    )


def _along(ends: list[FlowSolution], name: str) -> np.ndarray:
    """A named array of all saves, from flows that each have two."""
    return np.concatenate([np.asarray(getattr(ends[0], name))[:1], *(np.asarray(getattr(x, name))[1:] for x in ends)])


def _options(config: RestConfig) -> dict:
    """The options of every flow. RosenbrockW is made for the ratio 1/λ of fast and slow times."""
    rtol = jnp.asarray(config.rtol)
    return {"solver": RosenbrockW(), "rtol": rtol, "atol": 1e-2 * rtol, "steady": None, "max_steps": 20_000}
