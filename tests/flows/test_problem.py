"""A flow as an initial value problem: the defaults that are filled in, and the steady stop."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FLOATS, Matrix, bound

import wgf
from wgf.flows._geometry import FiniteVolume
from wgf.flows._problem import initial_value_problem
from wgf.solvers import CourantController

DEFAULTS = {
    "temperature": 0.0,
    "key": None,
    "solver": None,
    "rtol": 1e-3,
    "atol": 1e-6,
    "controller": None,
    "dt0": None,
    "steady": None,
}
TAUS = [0.0, 1.0, 3.0]


def half_square(model):
    return jnp.sum(model["x"] ** 2) / 2


def posed(dtype=float, **options):
    return initial_value_problem(half_square, {"x": jnp.array([3.0, 4.0], dtype)}, TAUS, **(DEFAULTS | options))


def test_the_defaults_are_an_adaptive_solve_without_noise_or_stop():
    problem = posed()
    assert isinstance(problem.solver, diffrax.Tsit5)
    assert isinstance(problem.controller, diffrax.PIDController)
    assert (problem.key, problem.dt0, problem.steady, problem.event()) == (None, None, None, None)
    assert isinstance(problem.terms(), diffrax.ODETerm)
    np.testing.assert_array_equal(problem.taus, TAUS)


@pytest.mark.parametrize("dtype", FLOATS)
def test_numbers_take_the_type_of_the_model(dtype):
    problem = posed(dtype, dt0=0.1, steady=0.5)
    assert isinstance(problem.controller, diffrax.PIDController)
    numbers = problem.taus, problem.temperature, problem.dt0, problem.steady, problem.controller.rtol
    assert {jnp.asarray(number).dtype for number in numbers} == {jnp.dtype(dtype)}


def test_a_temperature_makes_constant_steps_of_a_stochastic_method():
    problem = posed(temperature=0.5, key=jax.random.key(0), dt0=0.1)
    assert isinstance(problem.solver, diffrax.Heun)
    assert isinstance(problem.controller, diffrax.ConstantStepSize)
    assert isinstance(problem.terms(), diffrax.MultiTerm)


def test_a_key_without_temperature_is_not_used():
    assert posed(key=jax.random.key(0)).key is None


def test_a_grid_has_diffusion_in_the_place_of_noise():
    measure = wgf.measures.Gaussian(Matrix(1), 0.5).eulerian(1, (6,), -2.0, 2.0)
    problem = initial_value_problem(
        lambda model: model.measure.second_moment(),
        wgf.AveragedODE(Matrix(1), measure, steps=2),
        TAUS,
        **(DEFAULTS | {"temperature": 0.3}),
    )
    assert isinstance(problem.geometry, FiniteVolume)
    assert problem.geometry.temperature == problem.temperature == jnp.asarray(0.3)
    assert problem.key is None
    assert isinstance(problem.solver, diffrax.Heun)
    assert isinstance(problem.controller, diffrax.ClipStepSizeController)
    assert isinstance(problem.controller.controller, CourantController)


def test_the_norm_of_a_state_is_that_of_its_parameters():
    problem = posed()
    assert isinstance(problem.controller, diffrax.PIDController)
    assert problem.controller.norm(problem.start()) == 4


@pytest.mark.parametrize(("steady", "stops"), [(0.25, True), (0.24, False)])
def test_the_steady_stop_compares_the_dissipation_with_that_of_the_start(steady, stops):
    """At half the start the dissipation |x|² is a quarter."""
    problem = posed(steady=steady)
    state = jax.tree.map(lambda leaf: leaf / 2, problem.start())
    assert bool(problem.event().cond_fn(0.0, state, problem.args)) == stops


def test_at_rest_the_stop_is_at_the_rounding_of_q():
    def raised(model):
        return 5 + half_square(model)

    problem = initial_value_problem(raised, {"x": jnp.zeros(2)}, TAUS, **(DEFAULTS | {"steady": 0.1}))
    threshold = problem.event().cond_fn.threshold
    assert threshold == pytest.approx(5 * float(jnp.finfo(jnp.result_type(float)).eps) / 3, rel=bound(1e-12, 1e-5))
