"""The conditional gradient: from a law at rest to one whose optimality certificate is near 0."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray

from .._checks import at_least, instance, one_number, positive, random_key
from .._display.text import Brief, counted, known
from .._random import purpose
from ..flows import RosenbrockW, flow
from ..measures import Layered, Staged
from ..models import AbstractModel
from ..objective import Objective
from ._certificate import Certificate, certificate_and_values
from ._slots import with_slots, without_slots
from ._transfer import least_of_support, transfer

# The mass of a depth halves where its gap grew by more than this factor, and doubles where it did not. Smaller changes
# are those of the search.
SHRINK, GROW, GREW = 0.5, 2.0, 1.1
# A rise of Q below this share of it is an error of the flow.
RISE = 1e-6


class ConditionalGradient(Brief):
    r"""The history of [`wgf.analysis.conditional_gradient`][]. Row 0 is the start, row r the state after round r.

    - `model`: the last model, without particles of weight zero where no depth needs them.
    - `objective`, `risk`: Q and R, `[rounds + 1]`.
    - `gap`: \( \min_\theta \delta Q/\delta\rho - E_\rho\,\delta Q/\delta\rho \) at each depth, `[rounds + 1, depths]`.
    - `support`: the part of `gap` that only new particles can close, \( \min_\theta \delta Q/\delta\rho -
      \min_{\operatorname{supp} \rho} \delta Q/\delta\rho \), `[rounds + 1, depths]`. The rest of the gap is mass on
      particles that are not the best ones.
    - `particles`: the number of particles of positive weight, `[rounds + 1, depths]`.
    - `masses`: the mass that a round was to move, `[rounds, depths]`; `born`: whether it inserted a particle.
    - `kept`: whether Q fell in a round, `[rounds]`. Otherwise the state before it was restored.
    - `steps`: the steps of the flow, `[rounds]`.
    - `tolerance`: the share of Q to which the certificate was to rise.

    Its `repr` is one line. `equinox.tree_pformat` gives its whole structure.
    """

    model: AbstractModel
    objective: Float[np.ndarray, " rows"]
    risk: Float[np.ndarray, " rows"]
    gap: Float[np.ndarray, "rows depths"]
    support: Float[np.ndarray, "rows depths"]
    particles: Int[np.ndarray, "rows depths"]
    masses: Float[np.ndarray, "rounds depths"]
    born: Bool[np.ndarray, "rounds depths"]
    kept: Bool[np.ndarray, " rounds"]
    steps: Int[np.ndarray, " rounds"]
    tolerance: float

    @property
    def certificate(self) -> Float[np.ndarray, " rows"]:
        """The worst gap over depths in units of Q, `[rounds + 1]`: 0 at a global minimum."""
        return self.gap.min(axis=1) / self.objective

    @property
    def lacking(self) -> Float[np.ndarray, " rows"]:
        """The worst part of the gap that is missing support, in units of Q, `[rounds + 1]`."""
        return self.support.min(axis=1) / self.objective

    @property
    def falls(self) -> Float[np.ndarray, " rounds"]:
        """How far Q fell in each round, `[rounds]`."""
        return -np.diff(self.objective)

    @property
    def converged(self) -> bool:
        """Whether the certificate rose above −`tolerance`."""
        return bool(self.certificate[-1] >= -self.tolerance)

    def _facts(self) -> Iterator[str]:
        objective, counts = known(self.objective, 1), known(self.particles, 2)
        if objective is None or counts is None:
            return
        gap = self.certificate
        yield counted(len(objective) - 1, "round")
        yield f"Q {objective[0]:.4g} → {objective[-1]:.4g}"
        yield f"certificate {gap[0]:.2g} Q → {gap[-1]:.2g} Q"
        yield f"particles {counts[0].min()}–{counts[0].max()} → {counts[-1].min()}–{counts[-1].max()} per depth"
        yield "converged" if self.converged else f"not above {-self.tolerance:g} Q"


def conditional_gradient(
    objective: Objective,
    model: AbstractModel,
    *,
    key: PRNGKeyArray,
    tolerance: float = 1e-2,
    rounds: int = 32,
    mass: float = 0.1,
    spare: int = 4,
    tau: ArrayLike | None = None,
    solver: diffrax.AbstractSolver = RosenbrockW(),  # noqa: B008 (an immutable module)
    rtol: float | Array = 1e-4,
    atol: float | Array = 1e-6,
    steady: float | Array | None = 1e-10,
    max_steps: int = 4096,
    starts: int = 16,
    radius: ArrayLike | None = None,
) -> ConditionalGradient:
    r"""Lower Q below a law at rest: insert particles at the minimisers of δQ/δρ, let all particles flow, and repeat.

    A gradient flow moves particles and not their weights. It can rest where some particles sit at a high δQ/δρ, or
    where the support lacks a particle. The optimality certificate is then below 0. One round, at every depth t whose
    gap is not closed:

    \[ \theta^* \in \operatorname{arg\,min}_\theta \frac{\delta Q}{\delta \rho}(\theta, t), \qquad
       \rho \leftarrow \rho - \eta + m\,\delta_{\theta^*}, \quad \eta \le \rho, \quad |\eta| = m, \]

    where η takes the mass m from the particles of the greatest δQ/δρ (a pairwise step), and then the Wasserstein flow
    \( \dot\theta = -\nabla_\theta\,\delta Q/\delta\rho \) from there to rest. If a particle of the law is nearly as low
    as θ*, it receives the mass itself. The step alone may raise Q at a finite m; the flow lowers it. A round after
    which Q is higher is undone, and its masses are halved. Q therefore never rises. The mass of one depth is also
    halved where the gap grew by a tenth or more; otherwise it doubles, up to `mass`.

    A certificate of 0 is necessary for a global minimum. It is sufficient where Q is convex in ρ, as for one layer of
    neurons. With several layers another law may have a lower Q. δQ/δρ of a limit is that of Q as it is computed, whose
    flow comes to rest (`discrete` of [`wgf.Objective.first_variation`][]).

    **Arguments:**

    - `objective`, `model`: Q, and a model at rest, e.g. the end of a long [`wgf.flow`][]. Its measure is layered or
      staged, with particles of its own at each depth. It carries no tracers.
    - `key`: a random key for the searches.
    - `tolerance`: stop when the certificate is above −`tolerance` · Q.
    - `rounds`: the most rounds.
    - `mass`: the greatest m, the share of a depth's mass that one round moves.
    - `spare`: slots of weight zero that are added to each depth for new particles. When none is free, a new particle
      replaces the one of least weight.
    - `tau`: the length of the flow of a round. Default: 3/λ.
    - `solver`, `rtol`, `atol`, `steady`, `max_steps`: of these flows, as in [`wgf.flow`][]. Use
      [`wgf.flows.RKC`][]`()` for several outputs per prompt.
    - `starts`, `radius`: of the searches, as in [`wgf.analysis.certificate`][].

    **Returns:** [`wgf.analysis.ConditionalGradient`][].

    **Raises:** `ValueError` if an argument is out of range, the measure is interpolated or on a grid, the model has
    tracers, or λ = 0 without `tau`; as [`wgf.flow`][] does if a flow fails.

    Cost per round: a certificate at every depth, and one flow, of about 100 steps of `RosenbrockW`. All rounds share
    their compiled programs. Not for `jit`. Compute in float64 if λ is small: rounding limits the certificate.

    **Source:** arXiv:2410.23610 for the measure and its optimality; the step on measures: F. Bach, L. Chizat, *Gradient
    descent on infinitely wide neural networks*, arXiv:2110.08084, and Q. Denoyelle, V. Duval, G. Peyré, E. Soubies,
    *The sliding Frank–Wolfe algorithm*, arXiv:1811.06416. Mass that moves between particles: G. Rotskoff, S. Jelassi,
    J. Bruna, E. Vanden-Eijnden, *Global convergence of neuron birth-death dynamics*, arXiv:1902.01843.
    """
    tolerance, mass = _share("tolerance", tolerance), _share("mass", mass)
    rounds, spare = at_least("rounds", rounds, 1), at_least("spare", spare, 0)
    instance("objective", objective, Objective, "a wgf.Objective")
    _check_model(instance("model", model, AbstractModel, "a wgf.Transformer or a wgf.AveragedODE"))
    taus = jnp.stack([jnp.zeros(()), jnp.asarray(_length(objective, tau), float)])
    key = purpose(random_key("key", key), "analysis.conditional_gradient")
    search = {"starts": starts, "radius": radius}
    motion: dict[str, Any] = {"solver": solver, "rtol": jnp.asarray(rtol, float), "atol": jnp.asarray(atol, float)}
    motion |= {"steady": None if steady is None else jnp.asarray(steady, float), "max_steps": max_steps}

    state = _state(objective, with_slots(model, spare), key, search)
    history, logs = [state], []
    masses = np.full(len(model.measure.weights), mass)
    while len(logs) < rounds and float(state.found.relative_gap) < -tolerance and masses.max() > RISE:
        offered = np.where(np.asarray(state.found.gap) < -tolerance / 2 * float(state.found.objective), masses, 0)
        moved, born = transfer(state.model, state.found, state.values, jnp.asarray(offered, state.values.dtype))
        solution = flow(objective, moved, taus, **motion)
        fell = float(solution.objective[-1]) <= float(state.found.objective) * (1 + RISE)
        after = _state(objective, solution.model_at(-1), jax.random.fold_in(key, len(logs)), search) if fell else state
        masses = _next_masses(masses, mass, state.found, after.found) if fell else SHRINK * masses
        logs.append((offered, np.asarray(born), fell, int(solution.stats["num_steps"])))
        history.append(state := after)
    return _collect(history, logs, tolerance)


class _State(NamedTuple):
    """A law, its risk, its certificate at all depths, and δQ/δρ at its particles."""

    model: AbstractModel
    risk: Float[Array, ""]
    found: Certificate
    values: Float[Array, "depths width"]


def _state(objective: Objective, model: AbstractModel, key: PRNGKeyArray, search: dict[str, Any]) -> _State:
    depths = model.measure.depths
    found, values = certificate_and_values(objective, model, key, depths, max_steps=200, discrete=True, **search)
    # One program less than the risk itself needs.
    risk = found.objective - objective.weight_decay / 2 * model.measure.second_moment()
    return _State(model, risk, found, values)


def _next_masses(masses: np.ndarray, most: float, before: Certificate, after: Certificate) -> np.ndarray:
    """The masses of the next round, from the gaps before and after this one."""
    grew = np.asarray(after.gap) < GREW * np.asarray(before.gap)
    return np.where(grew, SHRINK * masses, np.minimum(GROW * masses, most))


def _collect(history: list[_State], logs: list[tuple], tolerance: float) -> ConditionalGradient:
    depths = len(history[0].values)
    masses, born, kept, steps = (list(column) for column in zip(*logs, strict=True)) if logs else ([], [], [], [])
    return ConditionalGradient(
        model=without_slots(history[-1].model),
        objective=np.array([float(state.found.objective) for state in history]),
        risk=np.array([float(state.risk) for state in history]),
        gap=np.stack([np.asarray(state.found.gap, float) for state in history]),
        support=np.stack([_support(state) for state in history]),
        particles=np.stack([np.sum(np.asarray(state.model.measure.weights) > 0, axis=1) for state in history]),
        masses=np.array(masses, float).reshape(-1, depths),
        born=np.array(born, bool).reshape(-1, depths),
        kept=np.array(kept, bool),
        steps=np.array(steps, int),
        tolerance=tolerance,
    )


def _support(state: _State) -> np.ndarray:
    """The least of the search minus the least of the particles; ≤ 0, because the search may end above a particle."""
    return np.minimum(np.asarray(state.found.least - least_of_support(state.model, state.values), float), 0)


def _check_model(model: AbstractModel) -> None:
    model.check()
    model.check_finite()
    if not isinstance(model.measure, Layered | Staged):
        raise ValueError(
            "`model` must hold particles of its own at each depth, in a wgf.measures.Layered or Staged measure; got "
            f"{type(model.measure).__name__}. Draw it with `.staged(width, key)`."
        )
    if model.tracers:
        raise ValueError(
            f"`model` must carry no tracers; got {len(model.tracers)}. Pass `model.with_tracers()` without arguments."
        )


def _share(name: str, value: float) -> float:
    """A number above 0 and below 1."""
    number = one_number(name, value)
    if not 0 < number < 1:
        raise ValueError(f"`{name}` must be above 0 and below 1; got {number:g}.")
    return number


def _length(objective: Objective, tau: ArrayLike | None) -> float:
    """The length of one flow."""
    if tau is not None:
        return float(positive("tau", tau))
    decay = one_number("weight_decay", objective.weight_decay)
    if decay == 0:
        raise ValueError("`tau` must be given if the objective's `weight_decay` is 0; got None.")
    return 3 / decay
