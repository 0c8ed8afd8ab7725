"""What the geometries share: types, values of any objective, and the control of errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FLOATS, Matrix, bound, regression

import wgf
from wgf.flows._geometry.base import error_control, prompt_weights, real_dtype, risk, value_and_outputs
from wgf.flows._geometry.euclidean import Euclidean
from wgf.flows._geometry.lagrangian import Lagrangian


def half_square(model):
    return jnp.sum(model["x"] ** 2) / 2


MODEL = {"x": jnp.array([1.0, 2.0])}


@pytest.fixture(scope="module")
def problem():
    objective = wgf.Objective(regression(jax.random.key(0)), 0.1)
    encoder = Matrix(objective.prompts.token_dim)
    return objective, wgf.Transformer(encoder, wgf.measures.Gaussian(encoder).layered(2, 3, jax.random.key(1)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_real_type_of_complex_parameters_is_that_of_their_parts(dtype):
    real = jnp.ones(2, dtype)
    assert real_dtype({"z": jax.lax.complex(real, real), "x": real}) == dtype
    assert real_dtype([real]) == dtype


def test_a_plain_function_has_no_outputs_and_is_all_risk():
    q, outputs = value_and_outputs(half_square, MODEL)
    assert (float(q), outputs.shape) == (2.5, (0,))
    assert prompt_weights(half_square).shape == (0,)
    assert risk(half_square, Euclidean().evaluate(half_square, MODEL)) == 2.5


def test_an_objective_has_outputs_weights_and_a_risk_below_q(problem):
    objective, model = problem
    q, outputs = value_and_outputs(objective, model)
    np.testing.assert_allclose(q, objective(model), rtol=bound(1e-14, 1e-6))
    np.testing.assert_allclose(outputs, objective.outputs(model), rtol=bound(1e-14, 1e-6))
    np.testing.assert_array_equal(prompt_weights(objective), objective.prompts.weights)
    found = Lagrangian().evaluate(objective, model)
    np.testing.assert_allclose(risk(objective, found), objective.risk(model), rtol=bound(1e-14, 1e-6))


@pytest.mark.parametrize(
    ("value", "got"), [(jnp.ones(2), r"float\d\d of shape \(2,\)"), (1, r"int\d\d of shape \(\)")], ids=["two", "int"]
)
def test_what_is_not_one_real_number_is_refused(value, got):
    with pytest.raises(ValueError, match=f"`objective` must return one real number; got {got}"):
        value_and_outputs(lambda model: value, MODEL)


def test_steps_may_not_fall_below_four_spacings_of_tau():
    taus = jnp.array([0.0, 10.0, 1000.0])
    control = error_control(1e-3, 1e-6, half_square, taus)
    assert control.dtmin == 4 * jnp.finfo(taus.dtype).eps * 1000
    assert (control.rtol, control.atol, control.norm, control.force_dtmin) == (1e-3, 1e-6, half_square, False)
