"""Diagnosis of a flow: failure signatures, found in its own numbers."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from .._checks import instance, random_key
from ..flows import RESULTS, FlowSolution
from ..flows._solution import with_models
from ..objective import Objective
from ._assumptions import check_assumptions
from ._certificate import certificate
from ._gap import Gap


class Finding(NamedTuple):
    """A failure signature, its evidence, and advice."""

    signature: str
    evidence: str
    advice: str


def diagnose(
    objective: Objective, solution: FlowSolution, *, key: PRNGKeyArray, gap: Gap | None = None
) -> tuple[Finding, ...]:
    """Name the failure signatures of a flow. A healthy flow has none.

    - *diverged*: the objective violates its energy identity (the tolerance is too loose), or the flow ended early and
      its particles ran away (the weight decay is too weak).
    - *ended early*: the flow ended early, but its particles did not run away.
    - *plateau*: the flow is stationary at a risk above 5 % of the initial risk. The optimality certificate decides
      whether weight decay keeps it there, or whether the point is stationary but not optimal.
    - *growing gap*: the distance to the limit more than tripled over the second half of the training times, and ends
      above the limit's noise if that is known.
    - *assumption*: the encoder is not partially 1-homogeneous, its gradients are not Lipschitz in expectation, or its
      kernel cannot distinguish the prompts. It is reported only if the risk stayed above 5 % of the initial risk.

    **Arguments:**

    - `objective`: the objective of the flow.
    - `solution`: a solution of [`wgf.flow`][] for a model with a measure.
    - `key`: a random key for the certificate and the assumptions.
    - `gap`: the gap of this flow to its limit, from [`wgf.gap`][], if available.

    **Returns:** [`wgf.analysis.Finding`][]s, worst first.

    Cost: one certificate and one check of the assumptions if the risk stayed high; otherwise almost nothing. Not for
    `jit`.

    **Source:** arXiv:2410.23610, sections 3 and 4, for the role of each assumption.
    """
    instance("objective", objective, Objective, "a wgf.Objective")
    with_models("solution", instance("solution", solution, FlowSolution, "a solution of wgf.flow"))
    if gap is not None:
        instance("gap", gap, Gap, "the gap of this flow, wgf.gap(finite, limit)")
    key = random_key("key", key)
    if diverged := _diverged(solution):
        return (diverged,)
    findings = [_growing_gap(gap)] if gap is not None else []
    if float(solution.risk[-1]) > 0.05 * float(solution.risk[0]):
        findings = [_plateau(objective, solution, key), *findings, *_assumptions(objective, solution, key)]
    return tuple(finding for finding in findings if finding is not None)


def _diverged(solution: FlowSolution) -> Finding | None:
    drop = solution.objective[0] - solution.objective
    violation = float(jnp.nanmax(jnp.abs(drop - solution.dissipated)) / jnp.maximum(jnp.nanmax(jnp.abs(drop)), 1e-30))
    identity = f"the objective's drop differs from the integrated dissipation by {violation:.1e} of the largest drop"
    if violation > 0.02:
        return Finding("diverged: tolerance too loose", identity, "lower `rtol`, or the constant `dt0`")
    # Q does not depend on tracers and other particles of weight zero.
    if bool(jnp.all(jnp.isfinite(solution.objective)) & (solution.result != RESULTS.not_finite)):
        return None
    moments = np.asarray(eqx.filter_vmap(lambda model: model.measure.second_moment())(solution.models))
    last = int(np.flatnonzero(np.isfinite(moments))[-1])
    end = f"the flow ended after τ = {float(solution.taus[last]):.3g} and met its energy identity until then"
    if moments[last] > 4 * moments[0]:
        growth = f"the particles' second moment grew from {moments[0]:.2g} to {moments[last]:.2g}"
        return Finding("diverged: weight decay too weak", f"{end}; {growth}", "raise the objective's `weight_decay`")
    return Finding("ended early", end, str(RESULTS[solution.result]))


def _plateau(objective: Objective, solution: FlowSolution, key: PRNGKeyArray) -> Finding | None:
    slow = float(solution.dissipation[-1]) * float(solution.taus[-1] - solution.taus[0])
    if slow > 0.02 * abs(float(solution.objective[-1])):
        return None  # not yet stationary
    end = solution.model_at(-1)
    lack = float(certificate(objective, end, key=key).value)
    at = f"risk {float(solution.risk[-1]):.3g} of the first {float(solution.risk[0]):.3g}, almost no dissipation"
    if lack < -0.02 * float(solution.objective[-1]):
        return Finding(
            "plateau: stationary but not optimal",
            f"{at}; a particle elsewhere would lower Q = {solution.objective[-1]:.3g}: the certificate is {lack:.2e}",
            "start from a wider law, more particles, or a `temperature` above 0",
        )
    penalty = float(objective.penalty(end))
    return Finding(
        "plateau: weight decay too large",
        f"{at}; the certificate is {lack:.1e}, and the penalty {penalty:.2g} balances the risk",
        f"lower `weight_decay` below {float(objective.weight_decay):.1g}",
    )


def _growing_gap(gap: Gap) -> Finding | None:
    half = gap.taus.shape[0] // 2
    middle, end = float(gap.output[half]), float(gap.output[-1])
    noise_alone = gap.resolved is not None and not bool(gap.resolved.output[-1])
    if half == 0 or noise_alone or not end > 3 * middle > 0:
        return None
    return Finding(
        "growing gap: width too small for the depth",
        f"the output gap grew from {middle:.2e} at τ = {float(gap.taus[half]):.3g} to {end:.2e} at the end",
        "raise the width M: the theory asks for M / log L to be large",
    )


def _assumptions(objective: Objective, solution: FlowSolution, key: PRNGKeyArray) -> list[Finding]:
    encoder = solution.model_at(-1).encoder
    found = check_assumptions(encoder, objective.prompts, key=key, samples=128)
    advice = "see wgf.analysis.check_assumptions, and use another encoder"
    rounding = 1e3 * float(np.finfo(objective.prompts.tokens.dtype).eps) ** 2
    broken = {
        "no partial homogeneity": (
            not found.partial,
            f"no leaf of the particle is 1-homogeneous: degrees {found.homogeneity}",
        ),
        "gradients not Lipschitz in expectation": (
            not found.mean.holds,
            f"their mean difference quotient grows as r^{found.mean.exponent:.2f} at short distances r",
        ),
        "prompts not distinguished": (
            found.least_eigenvalue < rounding,
            f"the kernel's least eigenvalue is {found.least_eigenvalue:.1e} of its greatest",
        ),
    }
    return [Finding(f"assumption: {name}", why, advice) for name, (is_broken, why) in broken.items() if is_broken]
