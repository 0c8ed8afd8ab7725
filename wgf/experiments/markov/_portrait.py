"""The phase portrait of the canonical model: gradient flow from a grid of starts, and the basins of the theory."""

from dataclasses import dataclass
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import lambertw

from ...companions import CanonicalMarkov, CanonicalRisk
from ...flows import flow, velocity

SIDE = 3.0
"""Starts lie in [-SIDE, SIDE]²."""
NEAR = 0.02
"""The prediction is not tested for starts closer than this to the separatrix."""
AT_REST = 1e-14
"""The dissipation at which a trajectory stops. The loss is then within about 1e-12 of its limit."""
REACHED = 1e-6
"""A trajectory has reached a minimum if its loss differs by less than this from the minimum's, in nats."""


@dataclass(frozen=True)
class Portrait:
    """Trajectories of one chain, `[starts, saves]`, and the theory's prediction for each start."""

    p: float
    q: float
    taus: np.ndarray
    e: np.ndarray
    w: np.ndarray
    loss: np.ndarray
    energy: np.ndarray
    predicted: np.ndarray
    distance: np.ndarray
    separatrix: np.ndarray
    entropy_rate: float
    entropy: float
    steps: int

    @property
    def resting(self) -> np.ndarray:
        """Whether a start lies on the line e = 0, whose points are all stationary."""
        return self.e[:, 0] == 0

    @property
    def gap_global(self) -> np.ndarray:
        """The distance of the last loss from the entropy rate."""
        return np.abs(self.loss[:, -1] - self.entropy_rate)

    @property
    def gap_local(self) -> np.ndarray:
        """The distance of the last loss from the entropy of π."""
        return np.abs(self.loss[:, -1] - self.entropy)

    @property
    def to_global(self) -> np.ndarray:
        """Whether a trajectory reached the global minima."""
        return self.gap_global < REACHED

    @property
    def to_local(self) -> np.ndarray:
        """Whether a trajectory reached the segment of bad minima, or stayed on the line e = 0."""
        return self.gap_local < REACHED

    @property
    def clear(self) -> np.ndarray:
        """Whether a start lies farther than `NEAR` from the separatrix."""
        return self.distance > NEAR

    @property
    def missed(self) -> np.ndarray:
        """Whether a trajectory did not reach the predicted minima."""
        return np.where(self.predicted, ~self.to_global, ~self.to_local)

    @property
    def drift(self) -> float:
        """The largest change of E along a trajectory, without starts on w = 0, where E is infinite."""
        moved = np.abs(self.energy - self.energy[:, :1])
        return float(np.max(moved[self.w[:, 0] != 0]))

    HEADS = (
        *("p", "q", "starts", "global", "local", "resting", "near", "missed", "missed, near", "E drift", "Q - rate"),
        *("Q - H(pi)", "steps"),
    )

    def cells(self) -> list[str]:
        """The table's row of this chain."""
        clear, moving = self.clear, ~self.resting
        ends = (self.gap_global, self.to_global), (self.gap_local, self.to_local)
        worst = [np.max(gap[end & moving], initial=0.0) for gap, end in ends]
        return [
            f"{self.p:.3g}",
            f"{self.q:.3g}",
            f"{len(self.e)}",
            f"{np.sum(self.to_global)}",
            f"{np.sum(self.to_local & moving)}",
            f"{np.sum(self.resting)}",
            f"{np.sum(~clear)}",
            f"{np.sum(self.missed & clear)}",
            f"{np.sum(self.missed & ~clear)}",
            f"{self.drift:.1e}",
            *(f"{gap:.1e}" for gap in worst),
            f"{self.steps}",
        ]

    def arrays(self) -> dict[str, Any]:
        """The arrays of this chain in `result.npz`."""
        names = ("taus", "e", "w", "loss", "energy", "predicted", "distance")
        return {name: getattr(self, name) for name in names}


def portrait(p: float, q: float, grid: int, tau: float) -> Portrait:
    """Flow from a `grid` × `grid` of starts, always in float64."""
    with jax.enable_x64(True):
        risk = CanonicalRisk(p, q)
        chain = risk.chain
        side = jnp.linspace(-SIDE, SIDE, grid)
        e, w = (axis.ravel() for axis in jnp.meshgrid(side, side, indexing="ij"))
        starts = jax.vmap(CanonicalMarkov)(e, w)
        taus = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1e-2, tau, 60)])
        solution = _flows(risk, starts, taus)
        border = separatrix(risk)
        return Portrait(
            p=p,
            q=q,
            taus=np.asarray(taus),
            e=np.asarray(solution.models.e),
            w=np.asarray(solution.models.w),
            loss=np.asarray(solution.objective),
            energy=np.asarray(eqx.filter_vmap(eqx.filter_vmap(lambda model: model.energy))(solution.models)),
            predicted=np.asarray(eqx.filter_vmap(risk.reaches_global)(starts)),
            distance=_distances(np.stack([e, w], axis=-1), border),
            separatrix=border,
            entropy_rate=float(chain.entropy_rate()),
            entropy=float(chain.entropy()),
            steps=int(jnp.max(solution.stats["num_steps"])),
        )


@eqx.filter_jit
def _flows(risk: CanonicalRisk, starts: CanonicalMarkov, taus: Float[Array, " saves"]):
    def one(start):
        # Order 8 conserves E to many digits. The curve of global minima is stiff, and an explicit solver would take
        # thousands of steps there. So a trajectory stops when its dissipation falls to AT_REST.
        speed = velocity(risk, start)
        steady = AT_REST / jnp.maximum(speed.e**2 + speed.w**2, AT_REST)
        return flow(risk, start, taus, solver=diffrax.Dopri8(), rtol=1e-9, atol=1e-12, steady=steady, throw=False)

    return eqx.filter_vmap(one)(starts)


def separatrix(risk: CanonicalRisk, points: int = 8000) -> np.ndarray:
    r"""The border of the basins as points (e, w): the level set of the saddle, \( w^2 - \log|w| = e^2 - E^* \).

    Lambert's function solves it for w: \( w = -\sqrt{-W(-e^{-1-2e^2})/2} \), on the lower branch if p + q < 1 and on
    the upper branch if p + q > 1.
    """
    # With an even number of points, e = 0 is left out. There, at the saddle, SciPy returns NaN.
    e = np.linspace(-2 * SIDE, 2 * SIDE, points)
    branch = -1 if risk.global_gain > 0 else 0
    return np.stack([e, -np.sqrt(-lambertw(-np.exp(-1 - 2 * e**2), branch).real / 2)], axis=-1)


def _distances(starts: np.ndarray, border: np.ndarray) -> np.ndarray:
    return np.min(np.linalg.norm(starts[:, None] - border[None], axis=-1), axis=1)
