"""One encoder in `wgf homogeneity`: its measured assumptions, and its flows from all seeds."""

import math
from dataclasses import dataclass

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

from ...analysis import Assumptions, check_assumptions
from ...flows import RESULTS, FlowSolution, RosenbrockW, flow
from ...measures import Gaussian, coordinates
from ...models import Transformer
from ...objective import Objective
from ...prompts import Prompts
from ._config import HomogeneityConfig
from ._encoders import Specimen

CLASSES = ("fully homogeneous", "partially", "not at all")


@dataclass(frozen=True)
class Trial:
    """One encoder: its measured assumptions, and its flows.

    - `risk`: the risk of each seed along training, as a share of the null model's ½ E[y²], `[seeds, saves]`. It is NaN
      if the flow failed.
    - `violation`: the difference between the fall of Q and the action of the particles' moves, as a share of the fall,
      `[seeds]`. It is the error of the steps in τ.
    - `excess`: the same difference with the dissipation ∫‖v‖² along the steps in place of the action, `[seeds]`. It is
      positive if steps jump back and forth across a kink or a steep valley. Along a kink, particles slide more slowly
      than v on either side.
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
        """The median of the last risks; infinite if half of the flows failed."""
        return float(np.median(np.where(self.finished, self.final, np.inf)))

    @property
    def homogeneity(self) -> str:
        """One of `CLASSES`."""
        found = self.assumptions
        return CLASSES[0] if found.joint is not None else CLASSES[1] if found.partial else CLASSES[2]


def measure_trial(
    config: HomogeneityConfig, specimen: Specimen, data: list[Prompts], keys: Key[jax.Array, " seeds"], taus: np.ndarray
) -> Trial:
    """Measure an encoder's assumptions, and train it from every seed.

    **Arguments:** the options; the encoder; the prompts and the key of each seed; the training times at which the risk
    is saved.
    """
    found = check_assumptions(
        specimen.encoder, data[0], key=jax.random.fold_in(keys[0], 1), scale=config.scale, samples=config.samples
    )
    # Equal intervals, and shorter ones at the start, where the particles move fast.
    every = np.union1d(taus, np.linspace(0, config.horizon, config.windows + 1))
    every = np.union1d(every, np.geomspace(1e-3, 1, 100)[:-1] * taus[1])
    solutions = [_flow(config, specimen, *seed, every) for seed in zip(data, keys, strict=True)]
    kept = np.searchsorted(every, taus)
    null = np.array([float(prompts.label_rms()) ** 2 / 2 for prompts in data])
    return Trial(
        specimen,
        found,
        risk=np.stack([_risk(solution)[kept] for solution in solutions]) / null[:, None],
        violation=np.array([abs(relative_excess(solution, action(solution))) for solution in solutions]),
        excess=np.array([relative_excess(solution, float(solution.dissipated[-1])) for solution in solutions]),
    )


def relative_excess(solution: FlowSolution, spent: float) -> float:
    """The excess of `spent` over the fall of Q, as a share of the fall."""
    return spent / float(solution.objective[0] - solution.objective[-1]) - 1


def action(solution: FlowSolution) -> float:
    r"""The action of the saved motion, \( \sum \|\Delta\theta\|^2_\rho / \Delta\tau \le \int \|\dot\theta\|^2 \).

    It uses the positions of the particles only. Where the gradient jumps, a flow follows the convex hull of the
    gradient's values on both sides (A. F. Filippov, *Differential equations with discontinuous righthand sides*, 1988).
    The energy identity holds for that motion. The velocities at the steps belong to one of the two sides.
    """
    measure = solution.models.measure
    places = np.asarray(jax.vmap(coordinates)(measure.particles))
    squares = np.sum(np.diff(places, axis=0) ** 2, axis=-1)
    masses = np.asarray(solution.model_at(0).measure.masses)
    return float(np.sum(np.sum(squares * masses, axis=(1, 2)) / np.diff(np.asarray(solution.taus))))


def _risk(solution: FlowSolution) -> np.ndarray:
    """The risks; NaN if the flow failed."""
    return np.where(solution.result == RESULTS.successful, solution.risk, np.nan)


def _flow(config: HomogeneityConfig, specimen: Specimen, prompts: Prompts, key, taus: np.ndarray) -> FlowSolution:
    initial = Gaussian(specimen.encoder, config.scale)
    model = Transformer(specimen.encoder, initial.layered(config.depth, config.width, jax.random.fold_in(key, 2)))
    objective = Objective(prompts, config.weight_decay)
    # Where the gradient jumps (ReLU), the error control would shrink the steps to zero. A smallest step prevents that.
    # In steep valleys (squared ReLU) an explicit method would be unstable at that step. The energy identity measures
    # the error of these steps.
    controller = diffrax.PIDController(config.rtol, config.rtol, dtmin=jnp.asarray(config.least_step))
    return flow(
        objective,
        model,
        jnp.asarray(taus),
        solver=RosenbrockW(),
        controller=controller,
        # Room for up to three rejected steps per smallest step.
        max_steps=4 * math.ceil(config.horizon / config.least_step) + len(taus),
        throw=False,
    )
