"""Long times: the steady-state stop, and how a failed flow says why. Plain modules, whose flows are closed forms."""

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, float64_only

import wgf
from wgf.flows import RESULTS


class Point(eqx.Module):
    """Two coordinates: all that moves."""

    x: jnp.ndarray
    y: jnp.ndarray


def bowl(rate):
    """Q = ½ x² + (rate/2) y²: x = x₀ e^(−τ), y = y₀ e^(−rate τ)."""

    def objective(point):
        return (point.x**2 + rate * point.y**2) / 2

    return objective


STEEP, SLOW = bowl(1.0), bowl(1e-3)


def steady_time(solution):
    """When a steady flow of SLOW or STEEP stopped, from what is left of x₀ = 1."""
    return -float(jnp.log(solution.model_at(-1).x))


def test_a_slow_approach_is_followed_to_the_slow_modes_own_end():
    """The dissipation x² + 10⁻⁶ y² falls fast while x does; a small fraction waits for y, not for x."""
    start = Point(jnp.asarray(1.0), jnp.asarray(100.0))
    solution = wgf.flow(SLOW, start, [0.0, 1e5], steady=1e-4, rtol=1e-6, max_steps=100_000)
    assert solution.result == RESULTS.event_occurred
    left = float(solution.model_at(-1).y / 100)
    # D = 10⁻² e^(−2·10⁻³ τ) once x is gone, against a threshold of 1e-4 (1 + 10⁻²): e^(−10⁻³ τ) = 0.1005.
    assert 0.09 < left <= 0.1006, left
    assert solution.objective[-1] == pytest.approx(5 * left**2, rel=1e-3)


def test_big_constant_parts_do_not_fire_early():
    """A criterion relative to the state would: here |velocity| < 1e-3 |state| from the start."""
    small, big = (
        wgf.flow(STEEP, Point(jnp.asarray(1.0), jnp.asarray(0.0)), [0.0, 100.0], steady=1e-6, rtol=1e-6),
        wgf.flow(bowl(0.0), Point(jnp.asarray(1.0), jnp.asarray(1e6)), [0.0, 100.0], steady=1e-6, rtol=1e-6),
    )
    # D = e^(−2τ) = 1e-6 at τ = 6.9; the stop is at the first step's end beyond.
    for solution in (small, big):
        assert solution.result == RESULTS.event_occurred
        assert 3 * np.log(10) < steady_time(solution) < 9


@pytest.mark.parametrize("x", [0.0, 1e-12])
def test_a_steady_start_stops_at_once(x):
    """Exactly steady, and steady but for rounding: nothing is left that Q could show."""
    objective = lambda point: 1 + STEEP(point)  # noqa: E731
    solution = wgf.flow(objective, Point(jnp.asarray(x), jnp.asarray(0.0)), [0.0, 1.0, 1e3], steady=1e-3)
    assert solution.result == RESULTS.event_occurred
    assert int(solution.stats["num_steps"]) <= 1
    assert solution.objective[-1] == 1.0


@float64_only
def test_a_saddle_is_left_although_the_flow_starts_slowly():
    """Q = (x² − y²)/2 + y⁴/4 from y = 10⁻⁶: the dissipation first falls, then rises; the stop waits for y = 1."""

    def objective(point):
        return (point.x**2 - point.y**2) / 2 + point.y**4 / 4

    start = Point(jnp.asarray(0.0), jnp.asarray(1e-6))
    solution = wgf.flow(objective, start, [0.0, 1e3], steady=1e-2, rtol=bound(1e-9, 1e-6), atol=bound(1e-11, 1e-8))
    assert solution.result == RESULTS.event_occurred
    assert solution.model_at(-1).y == pytest.approx(1, abs=1e-5)


def test_no_steady_state_runs_to_the_end():
    start = Point(jnp.asarray(1.0), jnp.asarray(0.0))
    solution = wgf.flow(STEEP, start, [0.0, 2.0], steady=1e-6)
    assert solution.result == RESULTS.successful
    assert bool(solution.reached.all())


def escape(point):
    """Q = −x³: x = 1 / (1 − 3τ), infinite at τ = ⅓."""
    return -(point.x**3) + 0 * point.y


def wall(point):
    """Q = x, but NaN with its gradient for x < ½, which x = 1 − τ reaches at τ = ½."""
    return point.x + 0 * jnp.sqrt(point.x - 0.5) + 0 * point.y


@pytest.mark.parametrize("objective", [escape, wall])
@pytest.mark.parametrize("solver", [diffrax.Tsit5(), wgf.flows.RKC()])
def test_steps_below_the_spacing_of_tau_say_so(objective, solver):
    start, taus = Point(jnp.asarray(1.0), jnp.asarray(0.0)), [0.0, 0.25, 1.0]
    solution = wgf.flow(objective, start, taus, solver=solver, throw=False)
    assert solution.result == RESULTS.dt_min
    assert int(solution.stats["num_steps"]) < 2000, "it must not try until `max_steps`"
    np.testing.assert_array_equal(solution.reached, [True, True, False])
    assert np.isnan(solution.objective[-1])
    with pytest.raises(eqx.EquinoxRuntimeError, match="fell below the spacing of numbers"):
        wgf.flow(objective, start, taus, solver=solver)


def test_a_users_own_least_step_says_so_too():
    controller = diffrax.PIDController(1e-4, 1e-6, dtmin=1e-2, force_dtmin=False)
    start = Point(jnp.asarray(1.0), jnp.asarray(0.0))
    assert wgf.flow(escape, start, [0.0, 1.0], controller=controller, throw=False).result == RESULTS.dt_min


def test_out_of_steps_names_the_solver_for_long_times():
    start = Point(jnp.asarray(1.0), jnp.asarray(1.0))
    with pytest.raises(eqx.EquinoxRuntimeError, match=r"ran out of steps.*wgf\.flows\.RKC"):
        wgf.flow(SLOW, start, [0.0, 1e5], max_steps=10)


def test_float32_far_along_does_not_stall():
    """At τ = 10⁵ a float32 has a spacing of 0.008: the flow gets there, or says that it cannot."""
    start = Point(jnp.float32(1.0), jnp.float32(1.0))
    solution = wgf.flow(SLOW, start, jnp.array([1e5, 1.01e5], jnp.float32), solver=wgf.flows.RKC(), throw=False)
    assert solution.result == RESULTS.successful
    assert solution.model_at(-1).y == pytest.approx(np.exp(-1.0), rel=1e-2)
