"""The canonical model: its loss, its bias, its invariant and its basins, each against something independent."""

from typing import Any, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FLOATS, bound
from scipy.integrate import solve_ivp
from scipy.optimize import minimize_scalar

import wgf
from wgf.companions import CanonicalMarkov, CanonicalRisk

CHAINS = [(0.1, 0.1), (0.9, 0.9), (0.2, 0.5), (0.7, 0.9)]
SADDLE = -np.sqrt(0.5)


def loss_by_hand(p, q, gain, bias):
    """The sum over the four pairs of symbols, in plain NumPy."""
    pi, total = [q / (p + q), p / (p + q)], 0.0
    for x, row in enumerate([[1 - p, p], [q, 1 - q]]):
        logit = gain * (x - 0.5) + bias
        total += pi[x] * sum(chance * np.logaddexp(0, -(2 * y - 1) * logit) for y, chance in enumerate(row))
    return total


@pytest.mark.parametrize(("p", "q"), CHAINS)
@pytest.mark.parametrize("gain", [-40.0, -4.0, 0.0, 0.7, 30.0])
def test_the_bias_is_the_best_and_the_loss_the_sum_over_pairs(p, q, gain):
    risk = CanonicalRisk(p, q)
    bias = float(risk.optimal_bias(jnp.asarray(gain)))
    best = minimize_scalar(lambda b: loss_by_hand(p, q, gain, b), bracket=(bias - 1, bias + 2), tol=1e-12)
    np.testing.assert_allclose(
        risk.loss(jnp.asarray(gain), jnp.asarray(bias)), loss_by_hand(p, q, gain, bias), rtol=bound(1e-13, 2e-6)
    )
    np.testing.assert_allclose(loss_by_hand(p, q, gain, bias), best.fun, rtol=bound(1e-12, 2e-6))
    mean = lambda x: q * 1 / (1 + np.exp(-(x - gain / 2))) + p / (1 + np.exp(-(x + gain / 2)))  # noqa: E731
    np.testing.assert_allclose(mean(bias), p, rtol=bound(1e-10, 2e-6))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("p", "q"), [(0.2, 0.5), (0.5, 0.2), (0.3, 0.3)])
def test_the_bias_of_a_huge_gain_does_not_overflow(p, q, dtype):
    risk = jax.tree.map(lambda leaf: leaf.astype(dtype), CanonicalRisk(p, q))
    bias, slope = jax.value_and_grad(risk.optimal_bias)(jnp.asarray(-1e4, dtype))
    # For a -> -infinity: half of |a|, and the logarithm of what is left of the quadratic.
    expected = np.sign(p - q) * 5e3 + (np.log(abs(p - q) / max(p, q)) if p != q else 0.0) * np.sign(p - q)
    expected += 0.0 if p == q else (np.log(p / q) / 2 + np.sign(p - q) * np.log(max(p, q) / np.sqrt(p * q)))
    np.testing.assert_allclose(bias, expected, rtol=1e-6)
    np.testing.assert_allclose(slope, -np.sign(p - q) / 2, atol=1e-6)


@pytest.mark.parametrize(("p", "q"), CHAINS)
def test_the_least_loss_is_the_entropy_rate_and_that_of_no_gain_the_entropy(p, q):
    risk = CanonicalRisk(p, q)
    gains = jnp.append(jnp.linspace(-8, 8, 4001), risk.global_gain)
    losses = jax.jit(jax.vmap(lambda a: risk.loss(a, risk.optimal_bias(a))))(gains)
    assert int(jnp.argmin(losses)) == 4001, gains[jnp.argmin(losses)]
    np.testing.assert_allclose(losses[-1], risk.chain.entropy_rate(), rtol=bound(1e-13, 2e-6))
    np.testing.assert_allclose(risk(CanonicalMarkov(0.0, 1.3)), risk.chain.entropy(), rtol=bound(1e-13, 2e-6))


@pytest.mark.parametrize(("p", "q"), CHAINS)
def test_derivatives_pass_through_the_bias(p, q):
    """Gradient and Hessian against differences of a loss whose bias SciPy finds."""
    risk = CanonicalRisk(p, q)

    def value(e, w):
        gain = e**2 * (1 + 2 * w * abs(w))
        start = float(risk.optimal_bias(jnp.asarray(gain)))
        found = minimize_scalar(lambda b: loss_by_hand(p, q, gain, b), bracket=(start - 1, start + 1), tol=1e-14)
        return cast(Any, found).fun

    at, h = np.array([0.8, -0.4]), 3e-4
    q_of = lambda x, risk: risk(CanonicalMarkov(x[0], x[1]))  # noqa: E731
    steps = h * np.eye(2)
    slopes = [(value(*(at + d)) - value(*(at - d))) / (2 * h) for d in steps]
    np.testing.assert_allclose(jax.jit(jax.grad(q_of))(jnp.asarray(at), risk), slopes, atol=bound(1e-7, 1e-6))
    curves = [
        [
            (value(*(at + a + b)) - value(*(at + a - b)) - value(*(at - a + b)) + value(*(at - a - b))) / (4 * h * h)
            for b in steps
        ]
        for a in steps
    ]
    np.testing.assert_allclose(jax.jit(jax.hessian(q_of))(jnp.asarray(at), risk), curves, atol=1e-5)


@pytest.mark.parametrize(("e", "w"), [(0.0, 1.0), (0.0, -2.0), (0.0, 0.0), (0.0, SADDLE)])
def test_the_line_e_0_is_at_rest_and_w_0_is_not_left(e, w):
    risk = CanonicalRisk(0.2, 0.5)
    velocity = wgf.velocity(risk, CanonicalMarkov(e, w))
    np.testing.assert_array_equal([velocity.e, velocity.w], [0, 0])
    assert float(wgf.velocity(risk, CanonicalMarkov(1.0, 0.0)).w) == 0
    assert float(wgf.velocity(risk, CanonicalMarkov(1.0, 0.0)).e) != 0


@pytest.mark.parametrize(("p", "q"), CHAINS)
def test_e_0_has_minima_maxima_and_a_saddle_where_theory_says(p, q):
    """The second derivative in e on the line e = 0: 2 (1 + 2w|w|) dQ/da changes its sign at -1/sqrt 2."""
    risk = CanonicalRisk(p, q)
    curvature = jax.jit(jax.vmap(lambda w: jax.hessian(lambda e: risk(CanonicalMarkov(e, w)))(0.0)))
    w = jnp.array([-2.0, -0.8, SADDLE, -0.6, 0.0, 2.0])
    expected = 2 * (1 + 2 * w * jnp.abs(w)) * (p * q / (p + q) ** 2) * (p + q - 1)
    np.testing.assert_allclose(curvature(w), expected, atol=bound(1e-14, 2e-6))


def grid():
    side = jnp.array([-2.9, -1.7, -0.9, -0.4, -0.05, 0.0, 0.05, 0.6, 2.2])
    e, w = (axis.ravel() for axis in jnp.meshgrid(side, side, indexing="ij"))
    return jax.vmap(CanonicalMarkov)(e, w)


def follow(risk, start, taus):
    """Gradient flow until the dissipation is down at 1e-14, or in float32 at 1e-10."""
    least = bound(1e-14, 1e-10)
    speed = wgf.velocity(risk, start)
    steady = least / jnp.maximum(speed.e**2 + speed.w**2, least)
    options = {"rtol": bound(1e-9, 1e-6), "atol": bound(1e-12, 1e-8), "steady": steady}
    return wgf.flow(risk, start, taus, solver=diffrax.Dopri8(), throw=False, **options)


@pytest.fixture(scope="module")
def flows():
    """Gradient flow of 81 starts on each chain, in one compiled solve."""
    taus = jnp.array([0.0, 0.3, 3.0, 30.0, 3000.0])

    @eqx.filter_jit
    def solve(risk):
        return eqx.filter_vmap(lambda start: follow(risk, start, taus))(grid())

    return {chain: solve(CanonicalRisk(*chain)) for chain in CHAINS}


@pytest.mark.parametrize("chain", CHAINS)
def test_the_energy_is_conserved(flows, chain):
    energy = jax.vmap(jax.vmap(lambda e, w: CanonicalMarkov(e, w).energy))
    models = flows[chain].models
    energies = energy(models.e, models.w)[grid().w != 0]
    np.testing.assert_allclose(energies, jnp.broadcast_to(energies[:, :1], energies.shape), atol=bound(1e-6, 5e-5))


@pytest.mark.parametrize("chain", CHAINS)
def test_every_start_ends_where_the_saddle_sends_it(flows, chain):
    risk, solution, starts = CanonicalRisk(*chain), flows[chain], grid()
    to_global = np.asarray(eqx.filter_vmap(risk.reaches_global)(starts))
    assert 20 < to_global.sum() < 70
    last = np.asarray(solution.objective[:, -1])
    np.testing.assert_allclose(last[to_global], risk.chain.entropy_rate(), atol=1e-6)
    np.testing.assert_allclose(last[~to_global], risk.chain.entropy(), atol=1e-6)
    gains = eqx.filter_vmap(lambda model: model.gain)(jax.tree.map(lambda leaf: leaf[:, -1], solution.models))
    np.testing.assert_allclose(gains[to_global], risk.global_gain, atol=1e-3)
    np.testing.assert_allclose(solution.models.e[~to_global, -1], 0, atol=1e-3)


@pytest.mark.parametrize("chain", CHAINS)
def test_no_trajectory_crosses_a_line_at_rest(flows, chain):
    for axis in (flows[chain].models.e, flows[chain].models.w):
        assert bool(jnp.all(jnp.sign(axis) == jnp.sign(axis[:, :1])))


@pytest.mark.parametrize("chain", CHAINS)
def test_the_flow_is_that_of_scipy(flows, chain):
    """The same trajectory from derivatives written by hand, by SciPy's own integrator."""
    p, q = chain
    index = int(np.flatnonzero((grid().e == -1.7) & (grid().w == -0.4))[0])

    def field(tau, y):
        e, w = y
        gain = e**2 * (1 + 2 * w * abs(w))
        sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
        bias = np.log(p / q) / 2 + np.arcsinh((p - q) * np.exp(-gain / 2) / (2 * np.sqrt(p * q)))
        low, high = bias - gain / 2, bias + gain / 2
        slope = p / (p + q) * (sigmoid(high) - (1 - q)) / 2 - q / (p + q) * (sigmoid(low) - p) / 2
        return [-slope * 2 * e * (1 + 2 * w * abs(w)), -slope * 4 * e**2 * abs(w)]

    solved = solve_ivp(field, (0, 30), [-1.7, -0.4], method="DOP853", rtol=1e-10, atol=1e-12, t_eval=[0.3, 3, 30])
    got = jnp.stack([flows[chain].models.e[index, 1:4], flows[chain].models.w[index, 1:4]])
    np.testing.assert_allclose(got, solved.y, atol=bound(1e-7, 2e-5))


@pytest.mark.slow
@pytest.mark.parametrize("chain", CHAINS)
def test_starts_beside_the_separatrix_part(flows, chain):
    """1e-3 to either side of the border, at three w, the two fates differ: the border is where theory has it."""
    risk = CanonicalRisk(*chain)
    w = jnp.array([-2.0, -1.5, -1.0]) if sum(chain) < 1 else jnp.array([-0.6, -0.4, -0.2])
    border = risk.separatrix(w)
    np.testing.assert_allclose(
        jax.vmap(lambda e, w: CanonicalMarkov(e, w).energy)(border, w), -(1 + np.log(2)) / 2, atol=1e-13
    )
    starts = jax.vmap(CanonicalMarkov)(jnp.concatenate([border - 1e-3, border + 1e-3]), jnp.concatenate([w, w]))
    solve = eqx.filter_vmap(lambda start: follow(risk, start, jnp.array([0.0, 1e5])))
    last = np.asarray(eqx.filter_jit(solve)(starts).objective[:, -1])
    np.testing.assert_allclose(last[:3], risk.chain.entropy(), atol=1e-6)
    np.testing.assert_allclose(last[3:], risk.chain.entropy_rate(), atol=1e-6)


def test_the_separatrix_ends_at_the_saddle_and_is_nowhere_else():
    below, above = CanonicalRisk(0.1, 0.1), CanonicalRisk(0.9, 0.9)
    w = jnp.array([-1.5, -0.3, 0.5])
    np.testing.assert_array_equal(jnp.isfinite(below.separatrix(w)), [True, False, False])
    np.testing.assert_array_equal(jnp.isfinite(above.separatrix(w)), [False, True, False])
    np.testing.assert_allclose(below.separatrix(jnp.array([SADDLE - 1e-6])), 0, atol=1e-5)


@pytest.mark.parametrize(("p", "q", "name"), [(0.0, 0.5, "p"), (0.5, 1.0, "q")])
def test_a_degenerate_chain_is_refused(p, q, name):
    with pytest.raises(ValueError, match=f"`{name}` must lie strictly between 0 and 1; got"):
        CanonicalRisk(p, q)


def test_a_vector_of_chains_is_refused():
    with pytest.raises(ValueError, match=r"`p` must be one number; got an array of shape \(2,\)"):
        CanonicalRisk(np.ones(2) / 2, 0.5)


def test_a_model_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="`e` must be finite"):
        CanonicalMarkov(np.nan, 1.0)
