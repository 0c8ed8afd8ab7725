"""Runge–Kutta–Chebyshev: polynomials, order, stability, stages, and whole flows."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, bound, float64_only, regression, relative

import wgf
from wgf.solvers._rkc import DAMPING, RKC, coefficients


def stability_polynomial(place, x):
    """P(x) of y' = λy, x = hλ, by the recurrence of the coefficients."""
    _, rows = coefficients(200)
    before, last = 0 * x, rows.slope[place, 1] * x
    for j in range(2, rows.stages[place] + 1):
        increments = rows.last[place, j] * last + rows.before[place, j] * before
        before, last = last, increments + x * (rows.slope[place, j] * (1 + last) + rows.start[place, j])
    return 1 + last


@pytest.mark.parametrize("stages", [2, 5, 10, 52, 200])
def test_stability_polynomials_are_the_shifted_chebyshev_ones(stages):
    """P_s(x) = a_s + b_s T_s(w0 + w1 x), at most 1 for x in [−0.649 (s² − 1), 0], and e^x to second order."""
    ladder, rows = coefficients(200)
    place = list(ladder).index(stages)
    t = np.polynomial.Chebyshev.basis(stages)
    w0 = 1 + DAMPING / stages**2
    w1, b = t.deriv()(w0) / t.deriv(2)(w0), t.deriv(2)(w0) / t.deriv()(w0) ** 2
    x = np.linspace(-0.649 * (stages**2 - 1), 0, 5001)
    expected = 1 - b * t(w0) + b * t(w0 + w1 * x)
    np.testing.assert_allclose(stability_polynomial(place, x), expected, rtol=0, atol=1e-9)
    assert np.abs(expected).max() <= 1 + 1e-12
    assert rows.node[place, stages] == pytest.approx(1, abs=1e-12)
    small = np.array([1e-2, 2e-2, 4e-2])
    remainders = stability_polynomial(place, small) - 1 - small - small**2 / 2
    assert np.all(np.abs(remainders) <= small**3 / 6 * (1 + 1e-3) + 1e-13), remainders


def solve(field, y0, end, **options):
    defaults = {"stepsize_controller": diffrax.PIDController(1e-5, 1e-7), "solver": RKC(), "dt0": None, "throw": False}
    return diffrax.diffeqsolve(diffrax.ODETerm(field), t0=0.0, t1=end, y0=y0, max_steps=4096, **{**defaults, **options})


def heat(t, y, args):
    """The heat equation on 40 points with Dirichlet walls and a source that depends on time; ρ = 4 · 41²."""
    return 41**2 * (jnp.diff(y, append=0.0) - jnp.diff(y, prepend=0.0)) + jnp.cos(t)


@pytest.fixture(scope="module")
def warm():
    return jnp.sin(jnp.pi * jnp.arange(1.0, 41.0) / 41)


@pytest.fixture(scope="module")
def heat_truth(warm):
    """By variation of constants in the eigenvectors sin(kπx) of the second difference."""
    k = np.arange(1, 41)
    vectors = np.sqrt(2 / 41) * np.sin(np.pi * np.outer(k, k) / 41)
    rates = 4 * 41**2 * np.sin(np.pi * k / 82) ** 2
    source = vectors @ np.ones(40)
    forced = (rates * np.cos(1.0) + np.sin(1.0) - rates * np.exp(-rates)) / (rates**2 + 1)
    return vectors @ (np.exp(-rates) * (vectors @ np.asarray(warm)) + source * forced)


def test_error_is_in_proportion_to_the_tolerance(warm, heat_truth):
    rtols = np.array([1e-3, 1e-4, 1e-5, 1e-6][: bound(4, 2)])
    solutions = [
        solve(heat, warm, 1.0, stepsize_controller=diffrax.PIDController(jnp.asarray(r), jnp.asarray(r / 100)))
        for r in rtols
    ]
    errors = [np.abs(s.ys[-1] - heat_truth).max() for s in solutions]
    assert max(errors / rtols) < 10, f"errors {errors}"
    assert all(int(s.stats["num_rejected_steps"]) <= 10 for s in solutions)


def test_order_two_on_a_nonlinear_nonautonomous_equation():
    """y' = −y³ cos t has y = (1 + 2 sin t)^(−½)."""
    counts = np.array([8, 16, 32, 64, 128])
    options = {"stepsize_controller": diffrax.ConstantStepSize()}
    field = lambda t, y, args: -(y**3) * jnp.cos(t)  # noqa: E731
    errors = [
        abs(solve(field, jnp.ones(()), 1.0, dt0=1 / n, **options).ys[-1] - (1 + 2 * np.sin(1.0)) ** -0.5)
        for n in counts
    ]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert 1.85 < slope < 2.15, f"slope {slope}, errors {dict(zip(counts, errors, strict=True))}"


@pytest.mark.heavy
def test_far_fewer_velocities_than_tsit5(warm):
    """What the method is for: evaluations, counted, on a stiff problem."""
    calls = []

    def counted(t, y, args):
        jax.debug.callback(lambda: calls.append(1))
        return heat(t, y, args)

    spent = {}
    for name, solver in {"RKC": RKC(), "Tsit5": diffrax.Tsit5()}.items():
        calls.clear()
        jax.block_until_ready(solve(counted, warm, 1.0, solver=solver).ys)
        jax.effects_barrier()
        spent[name] = len(calls)
    assert spent["RKC"] < spent["Tsit5"] / 3, spent


def test_steps_beyond_the_most_stages_are_rejected(warm):
    tolerance = {"stepsize_controller": diffrax.PIDController(bound(1e-5, 1e-4), bound(1e-7, 1e-6))}
    few = solve(heat, warm, 1.0, solver=RKC(max_stages=4), **tolerance)
    many = solve(heat, warm, 1.0, **tolerance)
    assert few.result == diffrax.RESULTS.successful
    assert int(few.stats["num_accepted_steps"]) > 3 * int(many.stats["num_accepted_steps"])
    np.testing.assert_allclose(few.ys, many.ys, atol=1e-5)


@pytest.mark.heavy
@float64_only
def test_saves_between_steps(warm):
    """The interpolation holds between steps: saves agree with a solve of ten times the accuracy."""
    times = diffrax.SaveAt(ts=jnp.linspace(0.1, 1.0, 7))
    loose = solve(heat, warm, 1.0, saveat=times)
    controller = diffrax.PIDController(1e-8, 1e-10)
    tight = solve(heat, warm, 1.0, saveat=times, solver=diffrax.Kvaerno5(), stepsize_controller=controller)
    np.testing.assert_allclose(loose.ys, tight.ys, atol=1e-4)


def test_a_field_that_does_not_depend_on_the_state():
    solution = solve(lambda t, y, args: jnp.ones_like(y), jnp.zeros(3), 2.0)
    np.testing.assert_allclose(solution.ys[-1], 2.0, rtol=bound(1e-12, 1e-5))


def test_forward_mode_differentiates():
    """y' = −a y: dy/da = −t y."""

    def final(rate):
        adjoint = diffrax.ForwardMode()
        return solve(lambda t, y, args: -args * y, jnp.ones(2), 1.0, args=rate, adjoint=adjoint).ys[-1, 0]

    _, slope = jax.jvp(final, (jnp.asarray(3.0),), (jnp.asarray(1.0),))
    assert slope == pytest.approx(-np.exp(-3.0), rel=1e-3)


def test_reverse_mode_says_that_it_is_not_defined():
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(lambda y: solve(heat, y, 0.1).ys[-1].sum())(jnp.ones(40))


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["finite", pytest.param("limit", marks=pytest.mark.slow)])
def test_flows_agree_with_tsit5(kind, key):
    prompts = regression(key)
    encoder = averaged(prompts.token_dim)
    objective, law = wgf.Objective(prompts, 1e-2), wgf.measures.Gaussian(encoder, 0.7)
    if kind == "finite":
        model = wgf.Transformer(encoder, law.layered(3, 4, key))
    else:
        model = wgf.AveragedODE(encoder, law.spectral(2, 4, key), steps=2)
    options = {"rtol": 1e-6, "atol": 1e-8}
    a, b = (wgf.flow(objective, model, [0.0, 5.0, 20.0], solver=s, **options) for s in (RKC(), diffrax.Tsit5()))
    assert relative(a.models.measure.particles, b.models.measure.particles) < 1e-4
    np.testing.assert_allclose(a.objective[0] - a.objective[-1], a.dissipated[-1], rtol=1e-3)


def test_dtype_follows_the_input(warm):
    assert solve(heat, warm.astype(jnp.float32), jnp.float32(0.1)).ys.dtype == jnp.float32


def test_what_it_refuses(unchecked):
    with pytest.raises(ValueError, match="`max_stages` must be a whole number of at least 2"):
        RKC(max_stages=1)
    assert eqx.tree_equal(RKC(), RKC(200))
