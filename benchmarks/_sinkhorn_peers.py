"""The Sinkhorn divergences that are compared: ours and those of OTT, POT and GeomLoss, and one measure of errors.

Each is a function of clouds `[saves, n, P]`, a reference `[n, P]`, ε and a knob to tighten, and returns values
`[saves]` and the potentials on the clouds `[saves, n]` (None where not asked for, as GeomLoss computes them apart).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from ott.geometry.pointcloud import PointCloud
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.acceleration import Momentum
from ott.solvers.linear.sinkhorn import Sinkhorn

from wgf.transport import divergence_curve, sinkhorn_divergence

try:
    import geomloss
    import ot
    import torch
except ImportError:
    geomloss = ot = torch = None

BLOCK = 64  # rows of a kernel in blocks


@functools.partial(jax.jit, static_argnames=("knob", "block"))
def _wgf(clouds, reference, epsilon, knob, block):
    options = {"epsilon": epsilon, "threshold": knob, "block": block}
    if len(clouds) == 1:
        found = jax.tree.map(lambda leaf: leaf[None], sinkhorn_divergence(clouds[0], reference, **options))
    else:
        found = divergence_curve(clouds, reference, **options)
    # Ours are of the clouds moved to a mean of 0: back to where they are.
    shifts = jnp.mean(clouds, axis=1) - jnp.mean(reference, axis=0)
    return found.value, found.potentials.x + 2 * jnp.einsum("knp,kp->kn", clouds, shifts)


def wgf(clouds, reference, epsilon, knob, block=None):
    """`wgf.transport`."""
    return jax.block_until_ready(_wgf(clouds, reference, epsilon, knob, block))


def wgf_blocks(clouds, reference, epsilon, knob):
    """The same in blocks."""
    return wgf(clouds, reference, epsilon, knob, BLOCK)


@functools.partial(jax.jit, static_argnames="knob")
def _ott(clouds, reference, epsilon, knob):
    options = {"threshold": knob, "max_iterations": 10**4}
    solver = Sinkhorn(**options)
    # As `ott.tools.sinkhorn_divergence` transports a cloud to itself.
    own_solver = Sinkhorn(**options, parallel_dual_updates=True, momentum=Momentum(start=0, value=0.5))

    def transport(solver, x, y, start):
        found = solver(LinearProblem(PointCloud(x, y, epsilon=epsilon)), init=start)
        return found.reg_ot_cost, found.potentials

    def step(starts, cloud):
        across, start = transport(solver, cloud, reference, starts[0])
        within, own_start = transport(own_solver, cloud, cloud, starts[1])
        return (start, own_start), (across - (within + own) / 2, start[0])

    zero = jnp.zeros(len(reference), reference.dtype)
    own, _ = transport(own_solver, reference, reference, (zero, zero))
    return jax.lax.scan(step, ((zero, zero), (zero, zero)), clouds)[1]


def plain_ott(clouds, reference, epsilon, knob):
    """OTT's own solver and point clouds; the reference's own term once, each cloud from the potentials before."""
    return jax.block_until_ready(_ott(clouds, reference, epsilon, knob))


def pot(clouds, reference, epsilon, knob):
    """POT's Sinkhorn on scalings; the reference's own term once, each cloud from the scalings of the one before."""
    weights = ot.unif(len(reference), type_as=reference)

    def transport(x, y, start):
        _, log = ot.sinkhorn(
            weights, weights, ot.dist(x, y), epsilon, stopThr=knob, numItermax=10**4, log=True, warmstart=start
        )
        u, v = (ot.backend.get_backend(x).log(log[name]) for name in ("u", "v"))
        # The entropy with respect to the product of the marginals.
        value = epsilon * float((u.sum() + v.sum()) / len(x) + 2 * math.log(len(x)))
        return value, (u, v)

    (own, _), start, own_start = transport(reference, reference, None), None, None
    values, potentials = [], []
    for cloud in clouds:
        across, start = transport(cloud, reference, start)
        within, own_start = transport(cloud, cloud, own_start)
        values.append(across - (within + own) / 2)
        potentials.append(epsilon * np.asarray(start[0]))
    return np.asarray(values), np.stack(potentials)


def pot_torch(clouds, reference, epsilon, knob):
    """The same on PyTorch's arrays."""
    return pot(_tensor(clouds), _tensor(reference), epsilon, knob)


def geomloss_tensorized(clouds, reference, epsilon, knob, debias=True):
    """GeomLoss, whose cost is |x - y|² / 2 and whose ε is blur²."""
    options = {"blur": math.sqrt(epsilon / 2), "scaling": knob, "backend": "tensorized"}
    loss = geomloss.SamplesLoss("sinkhorn", p=2, debias=debias, potentials=not debias, **options)
    reference, found = _tensor(reference), [loss(cloud, _tensor(reference)) for cloud in _tensor(clouds)]
    if debias:
        return 2 * np.asarray([float(value) for value in found]), None
    return None, np.stack([2 * np.asarray(f).reshape(-1) for f, _ in found])


# The variants and their knobs, loose to tight: POT's bounds the L2 norm of one marginal, which falls with n.
_THRESHOLDS = [0.3 / 2**k for k in range(24)]
_SCALINGS = [1 - 0.5 / 1.5**k for k in range(20)]
_MARGINALS = [1e-1, 3e-2, 1e-2, 3e-3, 1e-3]
VARIANTS = {"wgf": (wgf, _MARGINALS), "wgf blocks": (wgf_blocks, _MARGINALS), "OTT": (plain_ott, _MARGINALS)}
if ot is not None:
    VARIANTS |= {
        "POT": (pot, _THRESHOLDS),
        "POT torch": (pot_torch, _THRESHOLDS),
        "GeomLoss": (geomloss_tensorized, _SCALINGS),
    }


def potentials(name: str, *arguments):
    """Potentials of a variant, by one more call where its values come without."""
    function, _ = VARIANTS[name]
    found = function(*arguments)[1]
    return function(*arguments, debias=False)[1] if found is None else found


def worst_error(clouds, reference, epsilon, potentials) -> float:
    """The largest L1 error of a marginal over the clouds, in double precision, the other marginal made exact."""
    reference = np.asarray(reference, float)
    return max(
        _error(np.asarray(cloud, float), reference, float(epsilon), np.asarray(f, float))
        for cloud, f in zip(clouds, potentials, strict=True)
    )


def _error(x, y, epsilon, f) -> float:
    n, m, marginal = len(x), len(y), np.zeros(len(x))
    for rows in np.array_split(np.arange(m), max(1, n * m // 2**23)):
        exponents = (f - np.sum(x**2, 1) + 2 * y[rows] @ x.T) / epsilon
        plan = np.exp(exponents - exponents.max(axis=1, keepdims=True))
        marginal += np.sum(plan / plan.sum(axis=1, keepdims=True), axis=0) / m
    return float(np.sum(np.abs(marginal - 1 / n)))


def _tensor(array):
    return array if isinstance(array, torch.Tensor) else torch.tensor(np.asarray(array))
